//! What the demo's clients say can be counted.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

#[test]
fn requests_are_told_of_in_the_order_that_they_are_sent() {
    const COUNT: usize = 5;
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let serving = std::thread::spawn(move || {
        let answer = |mut stream: std::net::TcpStream| {
            let _ = stream.read(&mut [0; 1024]).unwrap();
            let body = r#"{"pod":"p","cluster":"a"}"#;
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        };
        let mut connections = server.incoming().map(Result::unwrap);
        // The first one is answered last.
        let first = connections.next().unwrap();
        connections.by_ref().take(COUNT - 1).for_each(answer);
        std::thread::sleep(Duration::from_millis(100));
        answer(first);
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterctl"));
    command.args(["demo", "load", &address, "--every", "10ms", "--timeout", "20s"]);
    let output = command.args(["--count", &COUNT.to_string()]).output().unwrap();
    serving.join().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let outcomes: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sent: Vec<u64> = outcomes.iter().map(|outcome| outcome["sentMicros"].as_u64().unwrap()).collect();
    assert_eq!(sent.len(), COUNT, "{lines}");
    assert!(sent.is_sorted(), "{sent:?}");
    assert!(outcomes.iter().all(|outcome| outcome["answer"]["cluster"] == "a"), "{lines}");
}
