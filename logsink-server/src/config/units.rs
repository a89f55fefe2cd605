//! Settings that are more than text: sizes (`64MiB`), times (`30d`), addresses (`127.0.0.1:4318`) and secrets.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, de};

/// A size in bytes: a number, or text with a unit (`KiB`, `MiB`, `GiB`, `TiB`; `KB`, `MB`, `GB`, `TB` are powers of ten).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    const UNITS: [(&'static str, u64); 9] = [
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("KB", 1_000),
        ("B", 1),
    ];

    /// Kibibytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// Mebibytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// Gibibytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// As a size in memory; on a 32-bit machine at most what it can address.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is not a size: write a number with KiB, MiB or GiB, such as 64MiB");
        let (number, unit) = split_unit(text);
        let scale = Self::UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, scale)| *scale);
        let scale = if unit.is_empty() { 1 } else { scale.ok_or_else(wrong)? };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(scale).map(Self).ok_or_else(|| format!("`{text}` is more than 16 EiB"))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |scale: u64| self.0 != 0 && self.0.is_multiple_of(scale);
        match Self::UNITS[..4].iter().find(|(_, scale)| fits(*scale)) {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A length of time: text with a unit (`ms`, `s`, `m`, `h`, `d`, `w`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// In milliseconds, the largest first.
    const UNITS: [(&'static str, u64); 6] =
        [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

    /// Minutes.
    pub const fn minutes(n: u64) -> Self {
        Self(Duration::from_secs(n * 60))
    }

    /// Days of 24 hours.
    pub const fn days(n: u64) -> Self {
        Self(Duration::from_secs(n * 86_400))
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("`{text}` is not a length of time: write a number with ms, s, m, h, d or w, such as 15m");
        let (number, unit) = split_unit(text);
        let (_, scale) = Self::UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let ms = number.checked_mul(*scale).ok_or_else(|| format!("`{text}` is too long"))?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let fits = |scale: u64| ms != 0 && ms.is_multiple_of(u128::from(scale));
        match Self::UNITS.iter().find(|(_, scale)| fits(*scale)) {
            Some((unit, scale)) => write!(f, "{}{unit}", ms / u128::from(*scale)),
            None => write!(f, "{ms}ms"),
        }
    }
}

/// An address to listen on: an IP address or `localhost`, and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ip = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        ip.as_deref().unwrap_or(text).parse().map(Self).map_err(|_| {
            format!("`{text}` is not an address to listen on: write an IP address and a port, such as 127.0.0.1:4318 or [::]:4318")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A password or key: never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// `Deserialize` from text, and for [`Bytes`] from a number.
macro_rules! as_text {
    ($name:ident, $expecting:literal, $number:expr) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                        let read: fn(u64) -> Option<$name> = $number;
                        let wrong = || E::invalid_value(de::Unexpected::Signed(number), &self);
                        u64::try_from(number).ok().and_then(read).ok_or_else(wrong)
                    }
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

as_text!(Bytes, "a size such as \"64MiB\"", |number| Some(Bytes(number)));
as_text!(Span, "a length of time with its unit, such as \"15m\"", |_| None);
as_text!(Address, "an address such as \"127.0.0.1:4318\"", |_| None);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("64MiB", 64 << 20), ("10 GB", 10_000_000_000), ("512", 512), ("1kib", 1024)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1MiB", "1.5GiB", "99999999999TiB", "3 apples"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        assert_eq!(Bytes::gib(4).to_string(), "4GiB");
        assert_eq!(Bytes(1500).to_string(), "1500B");
    }

    #[test]
    fn times() {
        assert_eq!("15m".parse(), Ok(Span::minutes(15)));
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        assert_eq!("2w".parse::<Span>().unwrap().to_string(), "2w");
        for text in ["", "15", "m", "-5m", "5 minutes", "99999999999999999w"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!("localhost:0".parse::<Address>().unwrap().to_string(), "127.0.0.1:0");
        assert!("[::1]:4317".parse::<Address>().is_ok());
        assert!("4317".parse::<Address>().unwrap_err().contains("127.0.0.1:4318"));
    }
}
