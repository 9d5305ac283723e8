//! One request, from the client's head to the answer's head.
//!
//! Invariants:
//! * Nothing of a refused request reaches a replica.
//! * A connection becomes a tunnel only when the client asked for it and the replica answered 101.
//! * After a request with `Upgrade` that did not become a tunnel the connection ends, because its
//!   further bytes were not checked (see [`crate::framing`]).

use crate::answers::Answer;
use crate::client::ClientState;
use crate::dispatch::{Dispatcher, Failure, Reply};
use crate::headers::{self, Wishes};
use crate::reply::{Exchange, ReplyBody, ReplyStream};
use crate::service::Service;
use crate::tunnel;
use crate::upload::Upload;
use crate::worker::Worker;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// What is left of a refused request's body is read up to here, so that the answer is not lost to the
/// reset that unread bytes cause.
const DISCARD_BYTES_MAX: usize = 256 * 1024;

/// Longest time spent on that.
const DISCARD_WAIT_MAX: Duration = Duration::from_millis(500);

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) worker: Rc<Worker>,
    pub(crate) service: Arc<Service>,
    pub(crate) client: Arc<ClientState>,
    pub(crate) stream: Arc<TcpStream>,
}

impl Proxy {
    /// Answers one request.
    pub(crate) async fn answer(&self, mut request: Request<Incoming>) -> Response<ReplyBody> {
        let exchange = Exchange::begin(&self.worker, &self.service, &self.client);
        let client_upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let client_version = request.version();
        let (mut parts, incoming) = request.into_parts();
        let limits = self.worker.limits();
        if let Err(refused) = headers::check_request(&parts, limits.uri_bytes_max) {
            let expects_continue = parts.headers.contains_key(header::EXPECT);
            discard(incoming, expects_continue).await;
            return self.own(Answer::unacceptable(&self.service.name, refused), exchange, true);
        }
        let view = self.service.view();
        let stream_timeout = view.stream_timeout;
        drop(view);
        let wishes = headers::prepare_request(&mut parts, &self.client.peer, &self.service.name);
        let request = self.upstream_request(parts, incoming, &wishes);
        let upload = request.body().clone();
        let dispatcher = Dispatcher {
            service: &self.service,
            limits,
            pool: self.worker.pool(),
            client: &self.stream,
            stream_timeout,
        };
        match dispatcher.send(request).await {
            Ok(reply) if reply.response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                match (client_upgrade, wishes.upgrade.is_some()) {
                    (Some(client_upgrade), true) => self.switch(reply, client_upgrade, exchange),
                    _ => self.own(self.failed(&Failure::Malformed), exchange, true),
                }
            }
            Ok(reply) => self.forward(reply, client_version, stream_timeout, wishes.upgrade_seen, exchange),
            Err(failure) => {
                discard_upload(upload, wishes.expects_continue).await;
                self.own(self.failed(&failure), exchange, wishes.upgrade_seen)
            }
        }
    }

    fn upstream_request(&self, parts: http::request::Parts, incoming: Incoming, wishes: &Wishes) -> Request<Upload> {
        let bytes = &self.service.metrics.request_bytes;
        if !wishes.expects_continue || incoming.is_end_stream() {
            return Request::from_parts(parts, Upload::new(incoming, &self.client, bytes));
        }
        let wait_max = Duration::from_millis(self.worker.limits().continue_wait_ms_max);
        let (upload, go_ahead) = Upload::held(incoming, &self.client, bytes, wait_max);
        let mut request = Request::from_parts(parts, upload);
        hyper::ext::on_informational(&mut request, move |reply| {
            if reply.status() == StatusCode::CONTINUE {
                go_ahead.give();
            }
        });
        request
    }

    fn failed(&self, failure: &Failure) -> Answer {
        Answer::failed(&self.service.name, failure, self.worker.limits())
    }

    fn own(&self, answer: Answer, exchange: Exchange, close: bool) -> Response<ReplyBody> {
        exchange.answered(answer.status);
        let mut response = answer.into_response().map(|bytes| ReplyBody::Own { bytes, _exchange: exchange });
        self.close_if(close, &mut response);
        response
    }

    fn forward(
        &self,
        reply: Reply,
        client_version: Version,
        silence_max: Duration,
        close: bool,
        exchange: Exchange,
    ) -> Response<ReplyBody> {
        let Reply { response, upstream, lease } = reply;
        let (mut parts, incoming) = response.into_parts();
        if headers::prepare_reply(&mut parts.headers).is_none() {
            return self.own(self.failed(&Failure::Malformed), exchange, close);
        }
        exchange.answered(parts.status);
        parts.version = Version::HTTP_11;
        let ends_with_connection =
            client_version == Version::HTTP_10 && !parts.headers.contains_key(header::CONTENT_LENGTH);
        self.client.set_reset_on_close(ends_with_connection && !incoming.is_end_stream());
        let body = ReplyBody::Stream(ReplyStream::new(incoming, upstream, lease, silence_max, exchange));
        let mut response = Response::from_parts(parts, body);
        self.close_if(close, &mut response);
        response
    }

    fn switch(&self, reply: Reply, client_upgrade: OnUpgrade, exchange: Exchange) -> Response<ReplyBody> {
        let Reply { mut response, lease, .. } = reply;
        let replica_upgrade = hyper::upgrade::on(&mut response);
        let (mut parts, _) = response.into_parts();
        let protocol = parts.headers.get(header::UPGRADE).cloned();
        if headers::prepare_reply(&mut parts.headers).is_none() {
            return self.own(self.failed(&Failure::Malformed), exchange, true);
        }
        exchange.answered(parts.status);
        parts.headers.extend(protocol.map(|protocol| (header::UPGRADE, protocol)));
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.version = Version::HTTP_11;
        tokio::task::spawn_local(skyserve_panics::alone(tunnel::run(client_upgrade, replica_upgrade, lease, exchange)));
        Response::from_parts(parts, ReplyBody::Switched)
    }

    /// Tells the client to use another connection for its next request.
    fn close_if(&self, close: bool, response: &mut Response<ReplyBody>) {
        if close || self.service.is_removed() || self.worker.wants_connections_closed(&self.service) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

async fn discard_upload(upload: Upload, expects_continue: bool) {
    if let Upload::Stream(stream) = upload
        && let Some(incoming) = Rc::into_inner(stream).map(crate::upload::UploadStream::into_incoming)
    {
        discard(incoming, expects_continue).await;
    }
}

/// Reads what is left of a body. Not of one that waits for `100 Continue`: reading would ask for it.
async fn discard(mut incoming: Incoming, expects_continue: bool) {
    if expects_continue || incoming.is_end_stream() {
        return;
    }
    let reading = async {
        let mut bytes = 0;
        while bytes < DISCARD_BYTES_MAX
            && let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await
        {
            bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        }
    };
    // Whether it was read whole or not, the answer goes out now.
    let _ = tokio::time::timeout(DISCARD_WAIT_MAX, reading).await;
}
