//! The serialization of `rt::Snapshot`, which contains `rt::Metrics`, with serde (feature `serde`).

mod common;

use std::time::{Duration, Instant};

use common::{BOUND, run};
use netpoll::net::TcpListener;
use netpoll::{rt, task};
use serde_json::Value;

#[test]
fn snapshot_is_serialized_with_seconds_and_texts() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_deadline(Some(Instant::now() + Duration::from_secs(3000))).unwrap();
        let acceptor = task::Builder::new().name("acceptor".into()).spawn(async move { listener.accept().await });
        let acceptor = acceptor.unwrap();
        let begin = Instant::now();
        let (value, waits) = loop {
            let value = serde_json::to_value(rt::inspect()).unwrap();
            let tasks = value["tasks"].as_array().unwrap();
            let task = tasks.iter().find(|task| task["name"] == "acceptor").unwrap();
            if task["waits_for"].is_object() {
                assert_eq!(
                    (&task["id"], &task["kind"]),
                    (&Value::from(acceptor.task().id().to_string().parse::<u64>().unwrap()), &Value::from("task"))
                );
                assert!(task["spawned_at"].as_str().unwrap().starts_with("tests/serde.rs:"), "{task}");
                assert!(task["age"].is_f64() && task["state"] == "waiting", "{task}");
                break (value.clone(), task["waits_for"].clone());
            }
            assert!(begin.elapsed() < BOUND / 2, "the task does not wait: {value}");
            task::yield_now().await;
        };
        assert_eq!(waits["socket"]["operation"], "readable", "{waits}");
        let socket = value["sockets"].as_array().unwrap().iter().find(|socket| socket["local"] == address.to_string());
        let socket = socket.unwrap();
        assert_eq!((&socket["state"], &socket["peer"]), (&Value::from("listening"), &Value::Null));
        assert_eq!(waits["socket"]["socket"], socket["id"]);
        assert!(socket["read_deadline"].as_f64().is_some_and(|left| left > 2000.0), "{socket}");
        assert!(value["workers"].as_array().unwrap().iter().any(|worker| worker["polls"].as_u64() > Some(0)));
        assert!(value["metrics"]["polls"].as_u64() > Some(0));
        assert_eq!(value["metrics"]["poll_seconds"]["buckets"].as_array().map(Vec::len), Some(13));
        acceptor.cancel().await;
    });
}
