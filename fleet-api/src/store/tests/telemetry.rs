//! What is drawn of telemetry stays the same while it is rolled up and forgotten.

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::telemetry::{Telemetry, Temperature};

use crate::cloud::telemetry::{ahead, forget, roll_up};
use crate::config::Retention;
use crate::fleet::Fleet;
use crate::http::tests::site::{NOW, Site};
use crate::store::Db;
use crate::store::telemetry::{
    Drawn, Series, telemetry_insert, telemetry_latest, telemetry_series,
};
use crate::store::testing::{add_box, on_both};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

const RETENTION: Retention = Retention {
    samples_ms: 30 * DAY,
    five_ms: 180 * DAY,
    hours_ms: 1095 * DAY,
};

/// A sample whose figures say when it was taken.
async fn sampled(db: &Db, id: &BoxId, at: i64, received: i64) {
    let minute = u32::try_from(at / MINUTE % 1000).expect("small");
    let sample = Telemetry {
        load_1m: f64::from(minute),
        memory_total_bytes: u64::from(minute) * 3,
        temperatures: (minute % 2 == 0)
            .then(|| Temperature {
                sensor: "cpu".into(),
                celsius: f64::from(minute),
            })
            .into_iter()
            .collect(),
        ..Telemetry::default()
    };
    let mut tx = db.write().await.expect("begins");
    assert!(
        telemetry_insert(&mut tx, id, at, &sample, received)
            .await
            .expect("inserts")
    );
    tx.commit().await.expect("commits");
}

async fn drawn(db: &Db, id: &BoxId, since: i64, until: i64, points: u32) -> Drawn {
    let mut tx = db.read().await.expect("begins");
    telemetry_series(&mut tx, id, (since, until), points)
        .await
        .expect("draws")
}

/// How many rows there are, and the earliest; a table's name is the test's own.
async fn rows(db: &Db, sql: &'static str) -> (i64, Option<i64>) {
    let mut tx = db.read().await.expect("begins");
    fetch!(one, &mut tx, (i64, Option<i64>), sql).expect("counts")
}

async fn samples(db: &Db) -> (i64, Option<i64>) {
    rows(db, "SELECT count(*), min(at) FROM telemetry").await
}

async fn lose_samples(db: &Db, before: i64) {
    let mut tx = db.write().await.expect("begins");
    execute!(&mut tx, "DELETE FROM telemetry WHERE at < $1", before).expect("deletes");
    tx.commit().await.expect("commits");
}

fn advance(fleet: &Fleet, millis: i64) {
    fleet.clock().advance(millis);
}

fn counts(drawn: &Drawn) -> Vec<(i64, i64)> {
    drawn.points.iter().map(|p| (p.at, p.samples)).collect()
}

on_both! {
    async fn a_long_range_is_drawn_from_rollups_as_it_was_from_samples(db: Db) {
        let site = Site::on(&db).await;
        let fleet = &site.people.fleet;
        let (id, other) = (add_box(&db, 1).await, add_box(&db, 2).await);
        for minute in 1..=300 {
            sampled(&db, &id, NOW - minute * MINUTE, NOW - minute * MINUTE).await;
        }
        sampled(&db, &other, NOW - HOUR, NOW - HOUR).await;
        let draw = async || (drawn(&db, &id, NOW - 5 * HOUR, NOW, 4).await, drawn(&db, &id, NOW - 5 * HOUR, NOW, 40).await);
        let from_samples = draw().await;
        assert_eq!((from_samples.0.series, from_samples.1.series), (Series::Hours, Series::FiveMinutes));

        roll_up(fleet, RETENTION).await.expect("rolls up");
        assert_eq!(draw().await, from_samples);
        // Five minutes are rolled up until eleven minutes ago, hours until the last full one.
        assert_eq!(rows(&db, "SELECT count(*), min(at) FROM telemetry_5m").await, (58, Some(NOW - 5 * HOUR)));
        assert_eq!(rows(&db, "SELECT count(*), min(at) FROM telemetry_1h").await, (4, Some(NOW - 5 * HOUR)));
        lose_samples(&db, NOW - 15 * MINUTE).await;

        assert_eq!(draw().await, from_samples);
        let first = &from_samples.1.points[0];
        assert_eq!((first.samples, first.load_1m_min, first.load_1m_max), (10, first.load_1m - 4.5, first.load_1m + 4.5));
        assert_eq!(first.celsius_avg.map(|c| c.rem_euclid(1.0)), Some(0.0));
    }

    async fn a_sample_that_comes_late_is_folded_in_and_never_out(db: Db) {
        let site = Site::on(&db).await;
        let fleet = &site.people.fleet;
        let id = add_box(&db, 1).await;
        let begin = NOW - 4 * HOUR;
        for minute in [0, 1, 61] {
            sampled(&db, &id, begin + minute * MINUTE, begin + minute * MINUTE).await;
        }
        roll_up(fleet, RETENTION).await.expect("rolls up");
        sampled(&db, &id, begin + 2 * MINUTE, NOW).await;
        let hours = async || counts(&drawn(&db, &id, begin, begin + 3 * HOUR, 1).await);
        assert_eq!(hours().await, [(begin - begin % (4 * HOUR), 3)]);

        // Not before whoever took it down must be done.
        roll_up(fleet, RETENTION).await.expect("rolls up");
        assert_eq!(hours().await, [(begin - begin % (4 * HOUR), 3)]);
        advance(fleet, 2 * MINUTE);
        roll_up(fleet, RETENTION).await.expect("rolls up");

        assert_eq!(hours().await, [(begin - begin % (4 * HOUR), 4)]);
        assert_eq!(rows(&db, "SELECT count(*), min(at) FROM telemetry_late").await.0, 0);
        // Most of the bucket is forgotten: what comes now knows less than the bucket does.
        lose_samples(&db, NOW).await;
        sampled(&db, &id, begin + 3 * MINUTE, NOW + 2 * MINUTE).await;
        advance(fleet, 2 * MINUTE);
        roll_up(fleet, RETENTION).await.expect("rolls up");
        assert_eq!(hours().await, [(begin - begin % (4 * HOUR), 4)]);
    }

    async fn each_series_is_forgotten_after_its_own_time(db: Db) {
        let site = Site::on(&db).await;
        let fleet = &site.people.fleet;
        let id = add_box(&db, 1).await;
        ahead(fleet).await.expect("makes partitions");
        sampled(&db, &id, NOW - 20 * DAY, NOW - 20 * DAY).await;
        sampled(&db, &id, NOW, NOW).await;
        roll_up(fleet, RETENTION).await.expect("rolls up");
        forget(fleet, RETENTION).await.expect("forgets");
        assert_eq!(samples(&db).await, (2, Some(NOW - 20 * DAY)));

        advance(fleet, 11 * DAY);
        // A box whose clock begins anew at each start.
        sampled(&db, &id, 5 * MINUTE, NOW + 11 * DAY).await;
        roll_up(fleet, RETENTION).await.expect("rolls up");
        forget(fleet, RETENTION).await.expect("forgets");
        assert_eq!(samples(&db).await, (2, Some(5 * MINUTE)));
        let old = drawn(&db, &id, NOW - 20 * DAY, NOW - 20 * DAY + HOUR, 300).await;
        assert_eq!((old.series, counts(&old)), (Series::FiveMinutes, vec![(NOW - 20 * DAY, 1)]));

        advance(fleet, 31 * DAY);
        roll_up(fleet, RETENTION).await.expect("rolls up");
        forget(fleet, RETENTION).await.expect("forgets");
        assert_eq!(samples(&db).await, (0, None));
        assert_eq!(rows(&db, "SELECT count(*), max(at) FROM telemetry_5m").await, (2, Some(NOW)));

        advance(fleet, 300 * DAY);
        roll_up(fleet, RETENTION).await.expect("rolls up");
        forget(fleet, RETENTION).await.expect("forgets");
        assert_eq!(rows(&db, "SELECT count(*), max(at) FROM telemetry_5m").await, (0, None));
        let old = drawn(&db, &id, NOW - 20 * DAY, NOW - 20 * DAY + HOUR, 300).await;
        assert_eq!((old.series, counts(&old)), (Series::Hours, vec![(NOW - 20 * DAY, 1)]));
        // What came last is not history.
        let mut tx = db.read().await.expect("begins");
        let (at, _) = telemetry_latest(&mut tx, &id).await.expect("reads").expect("is there");
        assert_eq!(at, NOW);
    }

    async fn partitions_are_made_ahead_filled_and_dropped(db: Db) {
        let site = Site::on(&db).await;
        let fleet = &site.people.fleet;
        let id = add_box(&db, 1).await;
        // Nobody made one in time: it is a stray until somebody does.
        sampled(&db, &id, NOW, NOW).await;
        ahead(fleet).await.expect("makes partitions");
        ahead(fleet).await.expect("has nothing to do");
        sampled(&db, &id, NOW + 2 * DAY, NOW + 2 * DAY).await;
        assert_eq!(samples(&db).await, (2, Some(NOW)));
        if !db.is_shared() {
            return;
        }
        let made = async || rows(&db, "SELECT count(*), CAST(NULL AS BIGINT) FROM pg_inherits \
            WHERE inhparent = to_regclass('telemetry')").await.0;
        assert_eq!(made().await, 5);
        assert_eq!(rows(&db, "SELECT count(*), min(at) FROM telemetry_strays").await.0, 0);
        assert_eq!(rows(&db, "SELECT count(*), min(at) FROM telemetry_20270115").await, (1, Some(NOW)));
        assert_eq!(rows(&db, "SELECT count(*), min(at) FROM telemetry_20270117").await, (1, Some(NOW + 2 * DAY)));

        advance(fleet, 33 * DAY);
        ahead(fleet).await.expect("makes partitions");
        assert_eq!(made().await, 9);
        roll_up(fleet, RETENTION).await.expect("rolls up");
        forget(fleet, RETENTION).await.expect("forgets");

        assert_eq!(made().await, 6);
        assert_eq!(samples(&db).await, (0, None));
    }
}
