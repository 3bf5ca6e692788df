//! Health and metrics of a node: HTTP/1.1 by hand, one request per connection.
//!
//! A node that does not answer is no error here: that is what the harness brings about.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a node is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Status and body of a GET.
///
/// # Errors
/// When nobody answers in time, or with something that is not HTTP.
pub fn get(node: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&node, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not HTTP"))
}

/// Whether the node says that it can commit, and if not, why.
pub fn ready(node: SocketAddr) -> Result<(), String> {
    match get(node, "/health/ready") {
        Ok((200, _)) => Ok(()),
        Ok((_, body)) => Err(body.trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Every sample by its name and labels.
///
/// # Errors
/// As [`get`].
pub fn samples(node: SocketAddr) -> io::Result<BTreeMap<String, f64>> {
    let (_, body) = get(node, "/metrics")?;
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    Ok(body.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_status_and_body() {
        let text = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 11\r\n\r\nnot ready: x";
        assert_eq!(parse(text), Some((503, "not ready: x".to_owned())));
        assert_eq!(parse("nonsense"), None);
    }
}
