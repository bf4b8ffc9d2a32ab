//! Bodies in and answers out, frame by frame.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::api::error::{Error, Kind, Place};
use crate::api::payload::Format;
use crate::service::Outcome;
use crate::service::admission::Permit;
use crate::service::compute::Compute;
use quantd_codec::encoding::Encoding;
use quantd_core::tensor::Buffer;

use super::negotiate::{extension, media_type};

/// Answers leave in frames of this size, so that a permit is not given back
/// while most of its answer still waits for the client.
const FRAME: usize = 256 << 10;
/// Bytes a second that a body must at least arrive at, beside the base time.
const MIN_RATE: u32 = 1 << 20;

/// Most zeros before a body: they move a part of it to an aligned address.
pub(super) const MAX_LEAD: usize = 64;

/// Most bytes of a body that are read for nothing, and the longest time that this may take: the
/// connection can then be used again.
const MAX_REST: usize = 1 << 20;
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// A body whose rest comes back when it is dropped before its end.
struct TrackedBody {
    body: Body,
    back: Option<oneshot::Sender<Body>>,
}

impl hyper::body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.back = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        if let Some(back) = self.back.take().filter(|_| !self.body.is_end_stream()) {
            // Nobody waits for it when the client has gone.
            drop(back.send(std::mem::take(&mut self.body)));
        }
    }
}

/// What a request leaves of its body.
pub(super) struct Remainder(oneshot::Receiver<Body>);

/// The same body, and what will be left of it; nothing of one that has ended.
pub(super) fn tracked(body: Body) -> (Body, Option<Remainder>) {
    if body.is_end_stream() {
        return (body, None);
    }
    let (back, rest) = oneshot::channel();
    (Body::new(TrackedBody { body, back: Some(back) }), Some(Remainder(rest)))
}

impl Remainder {
    /// Takes what is left, if anything is.
    pub(super) fn take(mut self) -> Option<Body> {
        self.0.try_recv().ok()
    }
}

/// Reads what is left of a body for nothing; whether that was all of it.
pub(super) async fn discard(mut body: Body) -> bool {
    if body.size_hint().lower() > MAX_REST as u64 {
        return false;
    }
    let all = async {
        let mut left = MAX_REST;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let read = frame.data_ref().map_or(0, Bytes::len);
            let Some(fewer) = left.checked_sub(read) else { return false };
            left = fewer;
        }
        true
    };
    tokio::time::timeout(REST_TIMEOUT, all).await.unwrap_or(false)
}

/// Bounds of receiving a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_bytes: usize,
    pub(super) timeout: Duration,
}

fn too_large(max: usize) -> Error {
    Error::new(Kind::TooLarge, format!("the body is larger than {max} bytes"))
        .cure("send smaller tensors, or raise --max-body-bytes")
}

/// The declared length, checked against the limit before anything is read.
pub(super) fn declared_length(headers: &HeaderMap, max: usize) -> Result<Option<usize>, Error> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    let length = length.ok_or_else(|| {
        Error::new(Kind::MalformedBody, "not a length").at(Place::Header("content-length"))
    })?;
    match usize::try_from(length) {
        Ok(length) if length <= max => Ok(Some(length)),
        _ => Err(too_large(max)),
    }
}

/// Bytes of a body that are received before the whole of it is admitted.
const FIRST: usize = 16 << 10;

/// Bytes of a body that are received in one go. A fast sender has the next frame there already, and there may be
/// hundreds of them: what is asked beside them has its turn when each has had one.
const TURN: usize = 256 << 10;

/// The right to hold what a request needs, by `cost` from the bytes of its body.
pub(super) struct Held<'a> {
    pub(super) compute: &'a Compute,
    pub(super) cost: &'a (dyn Fn(usize) -> usize + Sync),
    /// None before there is anything to hold.
    pub(super) permit: Option<Permit>,
}

impl Held<'_> {
    /// Waits for what a body of so many bytes needs.
    pub(super) async fn admit(&mut self, bytes: usize) -> Result<&Permit, Error> {
        let bytes = (self.cost)(bytes);
        let permit = match self.permit.take() {
            Some(mut permit) => {
                self.compute.raise(&mut permit, bytes).await?;
                permit
            }
            None => self.compute.admit(bytes).await?,
        };
        Ok(self.permit.insert(permit))
    }
}

/// Receives a body into one aligned buffer, behind `lead` bytes of zeros. It is admitted before memory is taken for
/// it: the first bytes, and all that are declared once there are more.
pub(super) async fn receive(
    mut body: Body,
    length: Option<usize>,
    lead: usize,
    bounds: Bounds,
    held: &mut Held<'_>,
) -> Result<Buffer, Error> {
    let started = Instant::now();
    let mut buffer = Buffer::default();
    buffer.extend(&[0; MAX_LEAD][..lead.min(MAX_LEAD)]);
    // Bytes of a body that there is room for, and those of this turn.
    let (mut admitted, mut turn) = (0, 0);
    loop {
        let grace = u32::try_from(buffer.bytes().len()).unwrap_or(u32::MAX) / MIN_RATE;
        let deadline = started + bounds.timeout + Duration::from_secs(u64::from(grace));
        let frame = tokio::time::timeout_at(deadline, body.frame()).await.map_err(|_| {
            Error::new(Kind::Timeout, "the body did not arrive in time")
                .cure("send it faster, or in smaller pieces")
        })?;
        let Some(frame) = frame else { return Ok(buffer) };
        let frame = frame.map_err(|_| Error::new(Kind::MalformedBody, "the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        let received = buffer.bytes().len() - lead + data.len();
        if received > bounds.max_bytes {
            return Err(too_large(bounds.max_bytes));
        }
        if received > admitted {
            admitted = match length {
                _ if received <= FIRST => FIRST.min(length.unwrap_or(FIRST)),
                Some(length) => length,
                None => 2 * received,
            };
            // Of unknown length it doubles; both halves of the move are held for a moment.
            let permit = held.admit(if length.is_some() { admitted } else { 3 * received }).await?;
            let mut larger = permit.buffer(admitted + lead);
            larger.extend(buffer.bytes());
            buffer = larger;
        }
        buffer.extend(&data);
        turn += data.len();
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// The bytes of an answer and the right to hold them until they are written.
struct Segments {
    frames: VecDeque<Bytes>,
    left: u64,
    _permit: Arc<Permit>,
}

impl hyper::body::Body for Segments {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(mut segment) = self.frames.pop_front() else { return Poll::Ready(None) };
        let frame = segment.split_to(segment.len().min(FRAME));
        if !segment.is_empty() {
            self.frames.push_front(segment);
        }
        self.left -= frame.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A file of elements is one to be saved: browsers would read it as text.
fn attachment(name: &str, format: Format) -> String {
    format!("attachment; filename=\"{name}.{}\"", extension(format))
}

/// The header of a fact about a tensor.
pub(super) fn fact_header(name: &str) -> Option<HeaderName> {
    format!("quantd-{}", name.replace('_', "-")).parse().ok()
}

/// Says where what was made is now, among the resources of its kind.
pub(super) fn locate(response: &mut Response, collection: &str, created: Option<String>) {
    let location = created.and_then(|name| format!("{collection}/{name}").parse().ok());
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
}

/// The answer of the operation `name` as a response.
pub(super) fn respond(name: &str, outcome: Outcome, waited: Duration) -> Response {
    let Outcome { answer, compute, permit } = outcome;
    let left = answer.len() as u64;
    let frames = answer.segments.into_iter().filter(|segment| !segment.is_empty()).collect();
    let mut response = Response::new(Body::new(Segments { frames, left, _permit: permit }));
    let headers = response.headers_mut();
    // Those below, of the middleware and of hyper: grown once.
    headers.reserve(8 + answer.facts.len());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(answer.format)));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(left));
    headers.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
    if answer.encoding != Encoding::Identity {
        let name = HeaderValue::from_static(answer.encoding.name());
        headers.insert(header::CONTENT_ENCODING, name);
    }
    if answer.format != Format::Json
        && let Ok(value) = HeaderValue::from_str(&attachment(name, answer.format))
    {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    if let Some(bytes) = answer.json_len {
        headers.insert(super::oip::HEADER_LENGTH, HeaderValue::from(bytes));
    }
    for (name, value) in answer.facts {
        if let (Some(name), Ok(value)) = (fact_header(name), HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    // In integers: decimals of floating-point numbers take longer than anything else here.
    let [queue, compute] = [waited.saturating_sub(compute), compute].map(|time| time.as_micros());
    let timing = format!(
        "queue;dur={}.{:03}, {name};dur={}.{:03}",
        queue / 1000,
        queue % 1000,
        compute / 1000,
        compute % 1000
    );
    if let Ok(timing) = HeaderValue::from_str(&timing) {
        headers.insert("server-timing", timing);
    }
    response
}
