//! The routes as a connection calls them: its link learns what it is at.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tower::Service;

use super::roster::{Link, Phase};

/// A service whose every request carries the [`Link`] of its connection.
#[derive(Clone, Debug)]
pub(in crate::http) struct Tracked<S> {
    pub(super) inner: S,
    pub(super) link: Arc<Link>,
}

impl<S> Service<Request<Incoming>> for Tracked<S>
where
    S: Service<Request<Incoming>, Response = Response, Future: Unpin>,
{
    type Response = Response<Answer>;
    type Error = S::Error;
    type Future = Handling<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        self.link.enter(Phase::Working);
        request.extensions_mut().insert(Arc::clone(&self.link));
        Handling { future: self.inner.call(request), link: Arc::clone(&self.link) }
    }
}

/// A request that is handled.
#[derive(Debug)]
pub(in crate::http) struct Handling<F> {
    future: F,
    link: Arc<Link>,
}

impl<F, E> Future for Handling<F>
where
    F: Future<Output = Result<Response, E>> + Unpin,
{
    type Output = Result<Response<Answer>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(Pin::new(&mut self.future).poll(cx))?;
        self.link.enter(Phase::Answering);
        let link = Arc::clone(&self.link);
        Poll::Ready(Ok(response.map(|body| Answer { body, link })))
    }
}

/// The body of an answer: when it is dropped, hyper has taken all of it.
#[derive(Debug)]
pub(in crate::http) struct Answer {
    body: Body,
    link: Arc<Link>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.link.enter(Phase::Settling);
    }
}
