use proptest::prelude::*;

use super::*;

const TRIAL: u64 = 120_000;
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn at(mono_ms: u64) -> Now {
    Now {
        mono_ms: 0,
        wall: NOW,
    }
    .after_millis(mono_ms)
}

/// Settings number `n`; 0 are those that every machine has by itself.
fn settings(n: u8) -> NetworkSettings {
    if n == 0 {
        return NetworkSettings::default();
    }
    serde_json::from_value(serde_json::json!({
        "addresses": [{ "address": format!("192.0.2.{n}"), "prefix_len": 24 }],
    }))
    .unwrap()
}

fn wish(change: u64, n: u8) -> NetworkWish {
    NetworkWish {
        change,
        settings: Some(settings(n)),
    }
}

fn keeper() -> Keeper {
    Keeper::new(settings(1), TRIAL, Saved::default())
}

fn state(keeper: &Keeper) -> NetworkState {
    keeper.report(at(0)).unwrap().state
}

#[test]
fn what_is_tried_is_on_the_disk_before_it_is_in_force() {
    let mut keeper = keeper();

    let todo = keeper.wish(wish(1, 2), at(0));

    assert!(
        matches!(&todo[..], [Do::Tell(told), Do::Save(saved), Do::Apply { settings: tried, instead_of }]
            if told.state == NetworkState::Trial && saved.trial.is_some()
                && **tried == settings(2) && **instead_of == settings(1)),
        "{todo:?}"
    );
    assert_eq!(keeper.report(at(60_000)).unwrap().left_secs, Some(60));
}

#[test]
fn without_the_cloud_the_settings_before_come_back() {
    let mut keeper = keeper();
    keeper.wish(wish(1, 2), at(0));
    keeper.applied(Ok(()), at(10));

    assert_eq!(keeper.poll_at_ms(), Some(TRIAL));
    assert_eq!(keeper.tick("", at(TRIAL - 1)), []);
    let todo = keeper.tick("LH-305 gateway silent", at(TRIAL));

    assert_eq!(*keeper.in_force(), settings(1));
    assert!(matches!(
        &todo[..],
        [Do::Tell(_), Do::Save(_), Do::Apply { .. }]
    ));
    let report = keeper.report(at(TRIAL)).unwrap();
    assert_eq!(report.state, NetworkState::RolledBack);
    assert!(report.reason.contains("120 s: LH-305"), "{}", report.reason);
    // The same wish, sent again, is not tried again.
    assert_eq!(keeper.wish(wish(1, 2), at(TRIAL)), []);
}

#[test]
fn only_a_session_proves_what_the_cloud_set() {
    let mut keeper = keeper();
    keeper.wish(wish(1, 2), at(0));
    // From before the settings were in force.
    assert_eq!(keeper.reached(Contact::Session), []);
    keeper.applied(Ok(()), at(10));

    assert_eq!(keeper.reached(Contact::Tls), []);
    keeper.reached(Contact::Session);

    assert_eq!(state(&keeper), NetworkState::Kept);
    assert_eq!(keeper.tick("", at(10 * TRIAL)), []);
    assert_eq!(*keeper.in_force(), settings(2));
    // A box that was never registered has no session; its cloud answers all the same.
    keeper.local(Some(settings(3)), at(0));
    keeper.applied(Ok(()), at(10));
    keeper.reached(Contact::Tls);
    assert_eq!(state(&keeper), NetworkState::Kept);
}

#[test]
fn a_cut_makes_no_trial_longer() {
    let mut first = keeper();
    let todo = first.wish(wish(1, 2), at(0));
    let Some(Do::Save(saved)) = todo.iter().find(|todo| matches!(todo, Do::Save(_))) else {
        panic!("{todo:?}");
    };
    let restarted = |saved: &Saved, wall_ms: i64| {
        let mut keeper = Keeper::new(settings(1), TRIAL, saved.clone());
        let now = Now {
            mono_ms: 5,
            wall: NOW.plus_millis(wall_ms),
        };
        (keeper.started(now), keeper)
    };

    let (todo, keeper) = restarted(saved, 100_000);
    assert_eq!(keeper.poll_at_ms(), Some(5 + 20_000));
    assert!(
        matches!(&todo[..], [Do::Save(_), Do::Apply { settings: tried, .. }] if **tried == settings(2))
    );
    let (todo, keeper) = restarted(saved, 121_000);
    assert_eq!(state(&keeper), NetworkState::RolledBack);
    assert!(
        matches!(&todo[..], [Do::Tell(_), Do::Save(_), Do::Apply { settings: back, .. }] if **back == settings(1))
    );
    // A clock that starts in 1970 each time: then starts count.
    let mut saved = (**saved).clone();
    let mut starts = 0;
    loop {
        let (todo, keeper) = restarted(&saved, -NOW.0);
        let save = todo.iter().find_map(|todo| match todo {
            Do::Save(saved) => Some((**saved).clone()),
            _ => None,
        });
        saved = save.unwrap();
        if keeper.saved.trial.is_none() {
            break;
        }
        assert_eq!(keeper.poll_at_ms(), Some(5 + TRIAL));
        starts += 1;
    }
    assert_eq!(starts, STARTS);
}

#[test]
fn garbage_is_refused_and_leaves_everything_as_it_is() {
    let mut keeper = keeper();
    let mut bad = settings(2);
    bad.addresses[0].prefix_len = 99;

    let todo = keeper.wish(
        NetworkWish {
            change: 4,
            settings: Some(bad.clone()),
        },
        at(0),
    );

    assert!(matches!(&todo[..], [Do::Tell(_), Do::Save(_)]), "{todo:?}");
    assert_eq!(state(&keeper), NetworkState::Refused);
    assert_eq!(*keeper.in_force(), settings(1));
    // Nor does a file that was edited by hand.
    let saved = Saved {
        kept: Some(bad),
        ..Saved::default()
    };
    let keeper = Keeper::new(settings(1), TRIAL, saved);
    assert_eq!(*keeper.in_force(), settings(1));
}

#[test]
fn what_cannot_be_applied_goes_back_at_once_and_is_applied_again_where_it_was_kept() {
    let mut keeper = keeper();
    keeper.local(Some(settings(2)), at(0));

    let todo = keeper.applied(Err("no such device".to_owned()), at(10));

    assert!(matches!(todo.last(), Some(Do::Apply { .. })), "{todo:?}");
    assert_eq!(state(&keeper), NetworkState::RolledBack);
    assert_eq!(keeper.applied(Err("no such device".to_owned()), at(20)), []);
    assert_eq!(keeper.poll_at_ms(), Some(20 + AGAIN_MS));
    let todo = keeper.tick("", at(20 + AGAIN_MS));
    assert!(matches!(&todo[..], [Do::Apply { settings: again, .. }] if **again == settings(1)));
}

/// Something that happens to a box.
#[derive(Clone, Debug)]
enum Happens {
    Wish(u64, Option<u8>),
    Local(Option<u8>),
    /// The cloud answers, if the settings let it.
    Contact(bool),
    Pass(u64),
    /// The power goes after so many more effects; the clock then starts that much later, or earlier.
    Cut(usize, i64),
    /// The next settings cannot be applied.
    Fail,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (1..30_u64, prop::option::of(0..5_u8)).prop_map(|(n, s)| Happens::Wish(n, s)),
        2 => prop::option::of(0..5_u8).prop_map(Happens::Local),
        3 => any::<bool>().prop_map(Happens::Contact),
        3 => (0..TRIAL).prop_map(Happens::Pass),
        3 => (0..4_usize, prop_oneof![Just(0), Just(-NOW.0), 0..400_000_i64])
            .prop_map(|(n, jump)| Happens::Cut(n, jump)),
        1 => Just(Happens::Fail),
    ]
}

/// A machine with a disk, whose power may go.
struct Model {
    keeper: Keeper,
    disk: Saved,
    /// What is really in force; nothing right after the power was cut.
    machine: NetworkSettings,
    /// Settings that the cloud was reached with, and the ones that the box was prepared with.
    proven: Vec<NetworkSettings>,
    now: Now,
    cut: Option<(usize, i64)>,
    fail: bool,
}

impl Model {
    /// Settings 1 and 3 lead to the cloud, 0, 2 and 4 do not.
    fn works(&self) -> bool {
        [settings(1), settings(3)].contains(&self.machine)
    }

    fn carry_out(&mut self, todo: Vec<Do>) {
        let mut todo = std::collections::VecDeque::from(todo);
        while let Some(next) = todo.pop_front() {
            if let Some((left, jump)) = &mut self.cut {
                if *left == 0 {
                    let jump = *jump;
                    self.cut = None;
                    return self.restart(jump);
                }
                *left -= 1;
            }
            match next {
                Do::Tell(_) => {}
                Do::Save(saved) => self.disk = *saved,
                Do::Apply { settings, .. } => {
                    let result = if std::mem::take(&mut self.fail) {
                        Err("refused by the kernel".to_owned())
                    } else {
                        self.machine = *settings;
                        Ok(())
                    };
                    todo.extend(self.keeper.applied(result, self.now));
                }
            }
        }
    }

    fn restart(&mut self, jump: i64) {
        self.now = Now {
            mono_ms: 0,
            wall: self.now.wall.plus_millis(jump),
        };
        self.machine = NetworkSettings::default();
        self.keeper = Keeper::new(settings(1), TRIAL, self.disk.clone());
        let todo = self.keeper.started(self.now);
        self.carry_out(todo);
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now.after_millis(millis);
        let todo = self.keeper.tick("", self.now);
        self.carry_out(todo);
    }

    fn happen(&mut self, what: &Happens) {
        let todo = match *what {
            Happens::Wish(change, n) => {
                let settings = n.map(settings);
                self.keeper.wish(NetworkWish { change, settings }, self.now)
            }
            Happens::Local(n) => self.keeper.local(n.map(settings), self.now),
            Happens::Contact(session) if self.works() => {
                self.proven.push(self.machine.clone());
                self.keeper.reached(if session {
                    Contact::Session
                } else {
                    Contact::Tls
                })
            }
            Happens::Contact(_) => Vec::new(),
            Happens::Pass(millis) => return self.pass(millis),
            Happens::Cut(after, jump) => {
                self.cut = Some((after, jump));
                Vec::new()
            }
            Happens::Fail => {
                self.fail = true;
                Vec::new()
            }
        };
        self.carry_out(todo);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn whatever_happens_it_ends_with_settings_that_work_or_those_before(
        story in prop::collection::vec(happens(), 0..40),
    ) {
        let mut model = Model {
            keeper: Keeper::new(settings(1), TRIAL, Saved::default()),
            disk: Saved::default(),
            machine: NetworkSettings::default(),
            proven: vec![settings(1)],
            now: at(0),
            cut: None,
            fail: false,
        };
        let todo = model.keeper.started(model.now);
        model.carry_out(todo);
        for what in story {
            model.happen(&what);
        }
        // Nothing else goes wrong, and nobody reaches the cloud any more.
        model.cut = None;
        model.fail = false;
        for _ in 0..4 {
            model.pass(TRIAL);
        }

        prop_assert!(model.keeper.saved.trial.is_none());
        prop_assert_eq!(&model.machine, model.keeper.in_force());
        prop_assert!(model.proven.contains(&model.machine), "{:?}", model.machine);
        // And so it stays after another cut.
        let before = model.machine.clone();
        model.restart(0);
        prop_assert_eq!(&model.machine, &before);
    }
}
