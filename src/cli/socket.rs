//! How the command line speaks to the node: JSON over HTTP over the node's Unix socket.

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::{Failure, NodeArgs, small_runtime};
use crate::admin::percent_encoded;
use crate::config::Config;
use crate::https::ErrorBody;

/// A connection to a node, for blocking callers.
pub(super) struct Connection {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects to the node whose file `args` names.
    pub(super) fn open(args: &NodeArgs) -> Result<Self, Failure> {
        let config = Config::read(&args.config)?;
        Self::open_socket(&config.admin_socket())
    }

    /// Connects to the node behind this socket.
    pub(super) fn open_socket(path: &Path) -> Result<Self, Failure> {
        let runtime = small_runtime()?;
        let sender = runtime.block_on(async {
            let stream = UnixStream::connect(path).await.map_err(|error| {
                let path = path.display();
                Failure::new(format!("cannot reach the node at {path} (is it running?): {error}"))
            })?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "the connection to the node ended");
                }
            });
            Ok::<_, Failure>(sender)
        })?;
        Ok(Self { runtime, sender })
    }

    /// Reads.
    pub(super) fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, None::<&()>)
    }

    /// Adds or does.
    pub(super) fn post<B: Serialize, T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        self.call(Method::POST, path, Some(body))
    }

    /// Asks for something that is no JSON.
    pub(super) fn post_for_bytes<B: Serialize>(
        &mut self,
        path: &str,
        body: &B,
    ) -> Result<Bytes, Failure> {
        self.send(Method::POST, path, Some(body))
    }

    /// Changes.
    pub(super) fn patch<B: Serialize, T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &B,
    ) -> Result<T, Failure> {
        self.call(Method::PATCH, path, Some(body))
    }

    /// Removes; for answers with a body.
    pub(super) fn delete<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        self.call(Method::DELETE, path, None::<&()>)
    }

    fn call<B: Serialize, T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, Failure> {
        let body = self.send(method, path, body)?;
        // An empty answer reads as JSON's null.
        let text: &[u8] = if body.is_empty() { b"null" } else { &body };
        Ok(serde_json::from_slice(text)?)
    }

    fn send<B: Serialize>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Bytes, Failure> {
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "watchword")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(bytes)))?;
        let (status, body) = self.runtime.block_on(async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<_, Failure>((status, body))
        })?;
        if status.is_success() {
            return Ok(body);
        }
        Err(match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(error) => Failure::new(error.message),
            Err(_) => {
                let text = String::from_utf8_lossy(&body);
                Failure::new(format!("the node answered {status}: {}", text.trim()))
            }
        })
    }
}

/// A path of the API with names in it, escaped.
pub(super) fn path(parts: &[&str]) -> String {
    parts.iter().map(|part| format!("/{}", percent_encoded(part))).collect()
}
