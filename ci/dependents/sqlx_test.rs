//! Replaces sqlx-test, a package of sqlx's repository that is not published, with the functions
//! that sqlx's tests import from it. `DATABASE_URL` names the database.

use sqlx::pool::PoolOptions;
use sqlx::{Connection, Database, Pool};

fn url() -> anyhow::Result<String> {
    Ok(std::env::var("DATABASE_URL")?)
}

pub async fn new<DB: Database>() -> anyhow::Result<DB::Connection> {
    Ok(DB::Connection::connect(&url()?).await?)
}

pub async fn pool<DB: Database>() -> anyhow::Result<Pool<DB>> {
    Ok(PoolOptions::new().min_connections(0).max_connections(5).test_before_acquire(true).connect(&url()?).await?)
}

pub fn setup_if_needed() {}
