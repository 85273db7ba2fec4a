//! gRPC over any connection: one call for control, one for bulk where it has no connection of its own.
//!
//! Owns the windows, frame sizes and keepalive of HTTP/2. Knows no message: what it carries are bytes, encoded once
//! however many connections they go to.
//!
//! Invariant: a connection is a task of ours, and its end has one cause.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::metadata::MetadataValue;
use tonic::server::StreamingService;
use tonic::{Request, Response, Status, Streaming};

use crate::carrier::Token;
use crate::limits;
use crate::tap::Pipe;

const EXCHANGE: &str = "/instep.v1.Sync/Exchange";
const BULK: &str = "/instep.v1.Sync/Bulk";
/// The header in which a caller announces the token of its bulk connection.
const TOKEN: &str = "instep-bulk-bin";

/// When a silent connection is asked whether it is alive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) keepalive: Duration,
    pub(crate) answer: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            keepalive: limits::KEEPALIVE,
            answer: limits::KEEPALIVE_ANSWER,
        }
    }
}

/// One call: what comes, and where to put what goes.
pub(crate) struct Call {
    pub(crate) incoming: Streaming<Bytes>,
    pub(crate) outgoing: mpsc::Sender<Bytes>,
    /// What a bulk connection of its own will begin with, where one is to be expected.
    pub(crate) token: Option<Token>,
}

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Exchange,
    Bulk,
}

impl Method {
    fn path(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Exchange => EXCHANGE,
            Self::Bulk => BULK,
        })
    }

    fn of(path: &str) -> Option<Self> {
        match path {
            EXCHANGE => Some(Self::Exchange),
            BULK => Some(Self::Bulk),
            _ => None,
        }
    }
}

/// Envelopes as they are: decoding is done by whoever knows what they may be.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

/// One buffer for several messages, so that many small ones go out together.
const BUFFERS: (usize, usize) = (16 * 1024, 128 * 1024);

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFERS.0, BUFFERS.1)
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// The calling side of a connection.
#[derive(Clone)]
pub(crate) struct Caller(hyper::client::conn::http2::SendRequest<Body>);

impl Service<http::Request<Body>> for Caller {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// What a connection is while it lasts.
pub(crate) type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Begins a connection as the one who calls.
pub(crate) async fn begin(io: impl Pipe, pace: Pace) -> hyper::Result<(Caller, Connection)> {
    let (caller, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .max_frame_size(limits::HTTP_FRAME_BYTES)
        .max_header_list_size(limits::HEADER_BYTES_MAX)
        .max_send_buf_size(limits::SEND_BUFFER_BYTES)
        .keep_alive_interval(pace.keepalive)
        .keep_alive_timeout(pace.answer)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(io))
        .await?;
    Ok((Caller(caller), Box::pin(connection)))
}

impl Caller {
    /// Makes a call. Some of what goes out may be there already, and travels with the call itself.
    pub(crate) async fn call(
        &self,
        method: Method,
        outgoing: mpsc::Receiver<Bytes>,
        token: Option<Token>,
    ) -> Result<Streaming<Bytes>, Status> {
        let origin = http::Uri::from_static("http://instep");
        let mut grpc = tonic::client::Grpc::with_origin(self.clone(), origin)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if let Some(token) = token {
            let value = MetadataValue::from_bytes(&token);
            request.metadata_mut().insert_bin(TOKEN, value);
        }
        let called = grpc.streaming(request, method.path(), Raw).await;
        called.map(Response::into_inner)
    }
}

/// Begins a connection as the one who is called. Calls arrive in the channel; a second one of a kind is refused.
pub(crate) fn serve(io: impl Pipe, pace: Pace) -> (mpsc::Receiver<(Method, Call)>, Connection) {
    let (arrive, calls) = mpsc::channel(2);
    let answer = Arc::new(Answer { arrive });
    let service = hyper::service::service_fn(move |request| {
        let answer = Arc::clone(&answer);
        async move { Ok::<_, Infallible>(answer.answer(request).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .max_frame_size(limits::HTTP_FRAME_BYTES)
        .max_header_list_size(limits::HEADER_BYTES_MAX)
        .max_concurrent_streams(limits::CALLS_MAX)
        .max_send_buf_size(limits::SEND_BUFFER_BYTES)
        .keep_alive_interval(pace.keepalive)
        .keep_alive_timeout(pace.answer)
        .serve_connection(TokioIo::new(io), service);
    (calls, Box::pin(connection))
}

struct Answer {
    arrive: mpsc::Sender<(Method, Call)>,
}

impl Answer {
    async fn answer(&self, request: http::Request<Incoming>) -> http::Response<Body> {
        let Some(method) = Method::of(request.uri().path()) else {
            return Status::unimplemented("no such call").into_http();
        };
        let arrive = Arrive {
            method,
            to: self.arrive.clone(),
        };
        tonic::server::Grpc::new(Raw)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
            .streaming(arrive, request)
            .await
    }
}

/// Hands a call to whoever waits for it.
struct Arrive {
    method: Method,
    to: mpsc::Sender<(Method, Call)>,
}

type Outgoing = Pin<Box<dyn tokio_stream::Stream<Item = Result<Bytes, Status>> + Send>>;

impl StreamingService<Bytes> for Arrive {
    type Response = Bytes;
    type ResponseStream = Outgoing;
    type Future = std::future::Ready<Result<Response<Outgoing>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (outgoing, stream) = mpsc::channel(limits::OUTBOX_MESSAGES_MAX);
        let token = request
            .metadata()
            .get_bin(TOKEN)
            .and_then(|v| v.to_bytes().ok());
        let token = token.and_then(|t| Token::try_from(&*t).ok());
        let incoming = request.into_inner();
        let call = Call {
            incoming,
            outgoing,
            token,
        };
        let arrived = self.to.try_send((self.method, call));
        std::future::ready(match arrived {
            Ok(()) => {
                let stream = tokio_stream::StreamExt::map(ReceiverStream::new(stream), Ok);
                Ok(Response::new(Box::pin(stream) as Outgoing))
            }
            Err(_) => Err(Status::resource_exhausted("too many calls")),
        })
    }
}
