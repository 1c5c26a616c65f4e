//! The two databases.

use crate::store::settings::setting_set;

#[tokio::test]
async fn a_reader_cannot_write() {
    for on in [
        crate::store::testing::sqlite().await,
        crate::store::testing::postgres().await,
    ] {
        let mut tx = on.db.read().await.expect("begins");
        assert!(setting_set(&mut tx, "a", "1").await.is_err());
    }
}

/// Table, column, type and whether it may be absent.
type Column = (String, String, String, bool);

#[tokio::test]
async fn both_databases_have_the_same_schema() {
    let lite = crate::store::testing::sqlite().await;
    let postgres = crate::store::testing::postgres().await;
    let mut tx = lite.db.read().await.expect("begins");
    let mut of_lite: Vec<Column> = fetch!(
        all,
        &mut tx,
        Column,
        "SELECT m.name, c.name, c.type, c.\"notnull\" = 0 FROM sqlite_master m, \
         pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\' \
         AND m.name NOT LIKE 'sqlite%'"
    )
    .expect("reads");
    let mut tx = postgres.db.read().await.expect("begins");
    let mut of_postgres: Vec<Column> = fetch!(
        all,
        &mut tx,
        Column,
        "SELECT CAST(table_name AS TEXT), CAST(column_name AS TEXT), upper(data_type), \
         is_nullable = 'YES' FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%' \
         AND NOT EXISTS (SELECT 1 FROM pg_class p WHERE p.relname = table_name AND p.relispartition)"
    )
    .expect("reads");
    for column in &mut of_postgres {
        if column.2 == "BYTEA" {
            column.2 = "BLOB".into();
        }
    }
    of_lite.sort();
    of_postgres.sort();
    assert!(of_lite.len() > 100, "{}", of_lite.len());
    assert_eq!(of_lite, of_postgres);
}
