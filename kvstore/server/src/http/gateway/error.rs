//! Refusals in JSON, with the codes of HTTP that grpc-gateway gives those of gRPC.

use http::{Response, StatusCode};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::http::router::typed;

/// The code of HTTP.
pub(super) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A refusal.
pub(super) fn refusal(status: &Status) -> Response<Body> {
    answer(http_status(status.code()), status.code(), status.message())
}

/// As above, with a code of HTTP of its own.
pub(super) fn answer(http: StatusCode, code: Code, message: &str) -> Response<Body> {
    // In the order of grpc-gateway, which some look at with their eyes.
    let quoted = serde_json::Value::from(message);
    let text = format!("{{\"error\":{quoted},\"code\":{},\"message\":{quoted}}}", code as i32);
    typed(http, "application/json", text)
}

/// The refusal of a stream that has not begun.
pub(super) fn of_stream(status: &Status) -> Response<Body> {
    typed(http_status(status.code()), "application/json", line(status))
}

/// The last line of a stream that has begun.
pub(super) fn line(status: &Status) -> String {
    let http = http_status(status.code());
    let message = serde_json::Value::from(status.message());
    format!(
        "{{\"error\":{{\"grpc_code\":{},\"http_code\":{},\"message\":{message},\"http_status\":\"{}\"}}}}\n",
        status.code() as i32,
        http.as_u16(),
        http.canonical_reason().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_one_that_grpc_gateway_gives_it() {
        let of_grpc = (0..17).map(Code::from_i32).map(|code| http_status(code).as_u16());
        let expected = [200, 408, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        assert!(of_grpc.eq(expected));
    }

    #[test]
    fn a_text_is_quoted() {
        let line = line(&Status::unavailable("a \"b\"\n"));
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        assert_eq!(parsed["error"]["message"], "a \"b\"\n");
        assert_eq!(parsed["error"]["http_status"], "Service Unavailable");
    }
}
