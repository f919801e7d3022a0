//! A lean client of the Redis protocol (RESP2 and RESP3): one connection, one call in flight.
//! Source of the format: the protocol specification at redis.io.

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What a server answered. Maps and sets come as flat lists.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Int,
    Text(Bytes),
    List(Vec<Value>),
    Push(Vec<Value>),
    Error(String),
}

impl Value {
    pub fn list(&self) -> &[Value] {
        match self {
            Value::List(items) | Value::Push(items) => items,
            _ => &[],
        }
    }

    pub fn text(&self) -> &[u8] {
        match self {
            Value::Text(text) => text,
            _ => &[],
        }
    }

    /// The value that follows `key` in a flattened map.
    pub fn field(&self, key: &str) -> Option<&Value> {
        self.list().chunks(2).find(|pair| pair[0].text() == key.as_bytes())?.get(1)
    }
}

pub struct Resp {
    socket: TcpStream,
    incoming: BytesMut,
    outgoing: Vec<u8>,
}

impl Resp {
    pub async fn connect(port: u16) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, incoming: BytesMut::with_capacity(16 << 10), outgoing: Vec::new() })
    }

    /// One command, one answer. An error that the server reports is an error here.
    pub async fn call(&mut self, command: &[&[u8]]) -> Result<Value> {
        self.outgoing.clear();
        self.outgoing.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
        for part in command {
            self.outgoing.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            self.outgoing.extend_from_slice(part);
            self.outgoing.extend_from_slice(b"\r\n");
        }
        self.socket.write_all(&self.outgoing).await?;
        match self.next().await? {
            Value::Error(error) => bail!("the server says: {error}"),
            value => Ok(value),
        }
    }

    /// The next value, whether answer or push.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            let mut rest = &self.incoming[..];
            if let Some(value) = parse(&mut rest)? {
                let used = self.incoming.len() - rest.len();
                self.incoming.advance(used);
                return Ok(value);
            }
            if self.socket.read_buf(&mut self.incoming).await? == 0 {
                bail!("the server closed the connection");
            }
        }
    }
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let found = &rest[..end];
    *rest = &rest[end + 2..];
    Some(found)
}

fn number(text: &[u8]) -> Result<i64> {
    std::str::from_utf8(text)?.parse().context("a length or number in an answer")
}

/// `None` while the value is not all there yet.
fn parse(rest: &mut &[u8]) -> Result<Option<Value>> {
    let Some(head) = line(rest) else { return Ok(None) };
    let Some((kind, head)) = head.split_first() else { bail!("an empty line in an answer") };
    Ok(Some(match kind {
        b'+' | b',' | b'(' | b'#' => Value::Text(Bytes::copy_from_slice(head)),
        b'-' => Value::Error(String::from_utf8_lossy(head).into_owned()),
        b':' => {
            number(head)?;
            Value::Int
        }
        b'_' => Value::Null,
        b'$' | b'!' | b'=' => {
            let Ok(length) = usize::try_from(number(head)?) else { return Ok(Some(Value::Null)) };
            if rest.len() < length + 2 {
                return Ok(None);
            }
            let text = &rest[..length];
            *rest = &rest[length + 2..];
            match kind {
                b'!' => Value::Error(String::from_utf8_lossy(text).into_owned()),
                _ => Value::Text(Bytes::copy_from_slice(text)),
            }
        }
        b'*' | b'~' | b'>' | b'%' => {
            let Ok(mut length) = usize::try_from(number(head)?) else {
                return Ok(Some(Value::Null));
            };
            if *kind == b'%' {
                length *= 2;
            }
            let mut items = Vec::with_capacity(length.min(1024));
            for _ in 0..length {
                let Some(item) = parse(rest)? else { return Ok(None) };
                items.push(item);
            }
            match kind {
                b'>' => Value::Push(items),
                _ => Value::List(items),
            }
        }
        other => bail!("an answer of unknown kind {:?}", char::from(*other)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_once_it_is_all_there() {
        let wire = b"%2\r\n+has_more\r\n#f\r\n+events\r\n*2\r\n:7\r\n$3\r\nabc\r\n+next";
        let whole = wire.len() - b"+next".len();
        for cut in 0..whole {
            assert!(parse(&mut &wire[..cut]).expect("well formed").is_none(), "cut at {cut}");
        }
        let mut rest = &wire[..];
        let value = parse(&mut rest).expect("well formed").expect("complete");
        assert_eq!(rest, b"+next");
        let events = value.field("events").expect("the field is there");
        assert_eq!(events.list().last().map(Value::text), Some(&b"abc"[..]));
    }

    #[test]
    fn nulls_and_errors_are_values() {
        for wire in ["$-1\r\n", "*-1\r\n", "_\r\n"] {
            let value = parse(&mut wire.as_bytes()).expect("well formed");
            assert!(matches!(value, Some(Value::Null)), "{wire:?}");
        }
        let value = parse(&mut &b"-ERR no\r\n"[..]).expect("well formed");
        assert!(matches!(value, Some(Value::Error(text)) if text == "ERR no"));
        assert!(parse(&mut &b"?\r\n"[..]).is_err());
    }
}
