//! Tests of the attributes `#[async_std::main]` and `#[async_std::test]`.
#![cfg(feature = "attributes")]

#[async_std::test]
async fn attribute_runs_a_test() {
    assert!(async_std::task::try_current().is_some());
}

mod program {
    #[async_std::main]
    pub(super) async fn main() -> std::io::Result<()> {
        async_std::task::spawn(async {}).await;
        Ok(())
    }
}

#[test]
fn attribute_runs_a_main_function() {
    program::main().unwrap();
}
