//! The directory of layers: one file each, replaced as a whole.
//!
//! A file is written under another name, brought to the disk, and renamed; the
//! directory is brought to the disk as well before anybody hears of it. What a
//! kill leaves behind is the old file or the new one, and at most one more that
//! is swept up at the next start.
//!
//! Others put things there too. What has the name of a layer and is no regular
//! file is never opened, because a pipe would never answer; what is one is read
//! to the length that was asked for and admitted, and no further.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::api::name::Name;
use quantd_core::tensor::Buffer;

/// End of the names of files.
const EXTENSION: &str = ".safetensors";
/// A name that no layer has: theirs begin with a letter or a digit.
const UNFINISHED: &str = ".unfinished";
/// Names that are tried for it where things are in the way.
const UNFINISHED_NAMES: usize = 16;
/// Held by the server that uses the directory.
const LOCK: &str = ".lock";

/// A directory that only this process uses.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The file that is written at the moment.
    unfinished: PathBuf,
    /// The lock ends with the process, however that ends.
    _lock: File,
}

impl Directory {
    /// Makes the directory where there is none, and takes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = lock(path)?;
        Ok(Self { path: path.to_owned(), unfinished: sweep(path)?, _lock: lock })
    }

    /// Names of the files that look like those of layers, in order; the rest is left alone.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let name = name.strip_suffix(EXTENSION).filter(|name| !name.starts_with('.'));
            names.extend(name.map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn file(&self, name: &Name) -> PathBuf {
        self.path.join(format!("{}{EXTENSION}", name.as_str()))
    }

    /// Bytes of the file of that name.
    pub(super) fn len(&self, name: &Name) -> io::Result<usize> {
        let metadata = fs::metadata(self.file(name))?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        usize::try_from(metadata.len()).map_err(|_| io::Error::other("the file is too large"))
    }

    /// The bytes of the file of that name, which are that many.
    pub(super) fn read(&self, name: &Name, len: usize) -> io::Result<Buffer> {
        if self.len(name)? != len {
            return Err(io::Error::other(
                "the file has another length than the one that was saved",
            ));
        }
        let mut buffer = Buffer::zeroed(len);
        File::open(self.file(name))?.read_exact(buffer.bytes_mut())?;
        Ok(buffer)
    }

    /// Brings what a file will hold to the disk; nothing that is there changes.
    pub(super) fn write(&self, segments: &[Bytes]) -> io::Result<Written<'_>> {
        let create = || File::options().write(true).create_new(true).open(&self.unfinished);
        let mut file = match create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&self.unfinished)?;
                create()?
            }
            created => created?,
        };
        // Removed again when it is dropped, whole or not.
        let len = segments.iter().map(Bytes::len).sum();
        let written = Written { directory: self, len, is_named: false };
        for segment in segments {
            file.write_all(segment)?;
        }
        file.sync_all()?;
        Ok(written)
    }

    /// Removes the file of that name, for good.
    pub(super) fn remove(&self, name: &Name) -> io::Result<()> {
        match fs::remove_file(self.file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Takes the directory, unless another server has it.
fn lock(path: &Path) -> io::Result<File> {
    let own = path.join(LOCK);
    let file = match fs::symlink_metadata(&own) {
        // The directory can be locked as well, but not on every file system.
        Ok(metadata) if !metadata.is_file() => {
            tracing::error!(path = ?own, "skipped what is not a regular file: move it away");
            File::open(path)?
        }
        _ => File::options().create(true).truncate(false).write(true).open(&own)?,
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(error),
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::other("another server uses the directory of layers: give each its own"))
        }
    }
}

/// Removes what a kill left behind, and gives the path for what is written.
fn sweep(path: &Path) -> io::Result<PathBuf> {
    let mut free = Err(io::Error::other("too many things are called .unfinished: move them away"));
    for i in 0..UNFINISHED_NAMES {
        let end = if i == 0 { String::new() } else { format!("-{i}") };
        let own = path.join(format!("{UNFINISHED}{end}"));
        match fs::remove_file(&own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(path = ?own, %error, "skipped what cannot be removed: move it away");
            }
            _ => free = free.or(Ok(own)),
        }
    }
    free
}

/// A file that is on the disk and has no name yet; without one it goes again.
#[must_use]
#[derive(Debug)]
pub(super) struct Written<'a> {
    directory: &'a Directory,
    len: usize,
    is_named: bool,
}

impl Written<'_> {
    /// Bytes of the file.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Makes it the file of that name; when this returns, a loss of power does
    /// not undo it.
    pub(super) fn name(mut self, name: &Name) -> io::Result<()> {
        fs::rename(&self.directory.unfinished, self.directory.file(name))?;
        self.is_named = true;
        self.directory.sync()
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        if !self.is_named {
            drop(fs::remove_file(&self.directory.unfinished));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::api::error::Place;

    fn name(text: &str) -> Name {
        Name::new(text, Place::Pointer(String::new())).unwrap()
    }

    /// A directory for one test, gone when it is dropped.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(test: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("quantd-files-{test}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn save(directory: &Directory, own: &str, segments: &[&'static str]) {
        let segments: Vec<_> = segments.iter().map(|&text| Bytes::from(text)).collect();
        directory.write(&segments).unwrap().name(&name(own)).unwrap();
    }

    fn read(directory: &Directory, own: &str) -> io::Result<Vec<u8>> {
        let own = name(own);
        directory.len(&own).and_then(|len| Ok(directory.read(&own, len)?.bytes().to_vec()))
    }

    #[test]
    fn files_are_replaced_as_a_whole() {
        let Temporary(path) = &Temporary::new("replaced");
        let directory = Directory::open(path).unwrap();
        assert!(Directory::open(path).is_err());
        save(&directory, "b", &["one ", "two"]);
        save(&directory, "a.x", &[]);
        assert_eq!(read(&directory, "b").unwrap(), b"one two");
        save(&directory, "b", &["three"]);
        assert_eq!(read(&directory, "b").unwrap(), b"three");
        assert!(directory.read(&name("b"), 4).is_err());
        drop(directory.write(&[Bytes::from("for nothing")]).unwrap());
        assert!(!path.join(UNFINISHED).exists());
        assert_eq!(read(&directory, "b").unwrap(), b"three");
        assert_eq!(directory.names().unwrap(), ["a.x", "b"]);
        fs::write(path.join(UNFINISHED), b"torn").unwrap();
        drop(directory);
        let directory = Directory::open(path).unwrap();
        assert!(!path.join(UNFINISHED).exists());
        directory.remove(&name("b")).unwrap();
        directory.remove(&name("b")).unwrap();
        assert_eq!(directory.names().unwrap(), ["a.x"]);
    }

    /// Each of these would end a read or a write that opens it.
    #[test]
    fn what_is_no_file_is_in_nobodys_way() {
        let Temporary(path) = &Temporary::new("things");
        let at = |name: &str| path.join(name);
        for name in [LOCK, UNFINISHED, ".unfinished-1", "folder.safetensors"] {
            fs::create_dir(at(name)).unwrap();
        }
        symlink(at("loop.safetensors"), at("loop.safetensors")).unwrap();
        symlink("/dev/zero", at("device.safetensors")).unwrap();
        let _socket = UnixListener::bind(at("socket.safetensors")).unwrap();
        let directory = Directory::open(path).unwrap();
        assert!(Directory::open(path).is_err(), "the directory is locked without the file");
        for own in directory.names().unwrap() {
            assert!(read(&directory, &own).is_err(), "{own}");
        }
        save(&directory, "b", &["here"]);
        assert_eq!(read(&directory, "b").unwrap(), b"here");
        // What is put there while it is open goes, where it can.
        let _other = UnixListener::bind(&directory.unfinished).unwrap();
        save(&directory, "socket", &["in its place"]);
        assert_eq!(read(&directory, "socket").unwrap(), b"in its place");
        fs::create_dir(&directory.unfinished).unwrap();
        assert!(directory.write(&[]).is_err());
        assert!(directory.unfinished.exists());
    }
}
