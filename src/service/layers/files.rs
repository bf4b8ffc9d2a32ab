//! The directory of layers: one file each, replaced as a whole.
//!
//! A file is written under another name, brought to the disk, and renamed; the
//! directory is brought to the disk as well before anybody hears of it. What a
//! kill leaves behind is the old file or the new one, and at most one more that
//! is swept up at the next start.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::api::name::Name;
use crate::tensor::Buffer;

/// End of the names of files.
const EXTENSION: &str = ".safetensors";
/// A name that no layer has: theirs begin with a letter or a digit.
const UNFINISHED: &str = ".unfinished";
/// Held by the server that uses the directory.
const LOCK: &str = ".lock";

/// A directory that only this process uses.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The lock ends with the process, however that ends.
    _lock: File,
}

impl Directory {
    /// Makes the directory where there is none, and takes it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock =
            File::options().create(true).truncate(false).write(true).open(path.join(LOCK))?;
        lock.try_lock().map_err(|_| {
            io::Error::other("another server uses the directory of layers: give each its own")
        })?;
        let directory = Self { path: path.to_owned(), _lock: lock };
        match fs::remove_file(directory.path.join(UNFINISHED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(directory),
        }
    }

    /// Names of the files that are there, in order; those of other kinds are left alone.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(EXTENSION));
            names.extend(name.filter(|name| !name.starts_with('.')).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{EXTENSION}"))
    }

    /// The bytes of the file of that name.
    pub(super) fn read(&self, name: &str) -> io::Result<Buffer> {
        let mut file = File::open(self.file(name))?;
        let len = usize::try_from(file.metadata()?.len())
            .map_err(|_| io::Error::other("the file is too large"))?;
        let mut buffer = Buffer::zeroed(len);
        file.read_exact(buffer.bytes_mut())?;
        Ok(buffer)
    }

    /// Brings what a file will hold to the disk; nothing that is there changes.
    pub(super) fn write(&self, segments: &[Bytes]) -> io::Result<Written<'_>> {
        // Removed again when it is dropped, whole or not.
        let written = Written { directory: self, is_named: false };
        let mut file = File::create(written.path())?;
        for segment in segments {
            file.write_all(segment)?;
        }
        file.sync_all()?;
        Ok(written)
    }

    /// Removes the file of that name, for good.
    pub(super) fn remove(&self, name: &Name) -> io::Result<()> {
        match fs::remove_file(self.file(name.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync(),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// A file that is on the disk and has no name yet; without one it goes again.
#[must_use]
#[derive(Debug)]
pub(super) struct Written<'a> {
    directory: &'a Directory,
    is_named: bool,
}

impl Written<'_> {
    fn path(&self) -> PathBuf {
        self.directory.path.join(UNFINISHED)
    }

    /// Makes it the file of that name; when this returns, a loss of power does
    /// not undo it.
    pub(super) fn name(mut self, name: &Name) -> io::Result<()> {
        fs::rename(self.path(), self.directory.file(name.as_str()))?;
        self.is_named = true;
        self.directory.sync()
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        if !self.is_named {
            drop(fs::remove_file(self.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::error::Place;

    fn name(text: &str) -> Name {
        Name::new(text, Place::Pointer(String::new())).unwrap()
    }

    #[test]
    fn files_are_replaced_as_a_whole() {
        let path = std::env::temp_dir().join(format!("quantd-files-{}", std::process::id()));
        let directory = Directory::open(&path).unwrap();
        assert!(Directory::open(&path).is_err());
        let save = |own: &str, segments: &[&'static str]| {
            let segments: Vec<_> = segments.iter().map(|&text| Bytes::from(text)).collect();
            directory.write(&segments).unwrap().name(&name(own)).unwrap();
        };
        save("b", &["one ", "two"]);
        save("a.x", &[]);
        assert_eq!(directory.read("b").unwrap().bytes(), b"one two");
        save("b", &["three"]);
        assert_eq!(directory.read("b").unwrap().bytes(), b"three");
        drop(directory.write(&[Bytes::from("for nothing")]).unwrap());
        assert!(!path.join(UNFINISHED).exists());
        assert_eq!(directory.read("b").unwrap().bytes(), b"three");
        assert_eq!(directory.names().unwrap(), ["a.x", "b"]);
        fs::write(path.join(UNFINISHED), b"torn").unwrap();
        drop(directory);
        let directory = Directory::open(&path).unwrap();
        assert!(!path.join(UNFINISHED).exists());
        directory.remove(&name("b")).unwrap();
        directory.remove(&name("b")).unwrap();
        assert_eq!(directory.names().unwrap(), ["a.x"]);
        drop(directory);
        fs::remove_dir_all(&path).unwrap();
    }
}
