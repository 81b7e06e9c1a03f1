//! How long a client waits.

use std::time::Duration;

use http::HeaderMap;
use tonic::Status;

/// How long the client waits for an answer: a number of up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
pub(super) fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get("grpc-timeout")?.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The client's deadline is over.
pub(super) fn too_late() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_deadline_is_a_number_and_a_unit() {
        let deadline = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            deadline(&headers)
        };
        assert_eq!(deadline("2S"), Some(Duration::from_secs(2)));
        assert_eq!(deadline("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(deadline("150m"), Some(Duration::from_millis(150)));
        for wrong in ["", "S", "2", "2x", "-2S", "123456789S", "1.5S"] {
            assert_eq!(deadline(wrong), None, "{wrong:?}");
        }
    }
}
