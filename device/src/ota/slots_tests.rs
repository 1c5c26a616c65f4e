use super::*;
use crate::ota::supervise::choose_for_tests as choose;

struct Machine {
    dir: tempfile::TempDir,
    slots: Slots,
}

impl Machine {
    /// Slot a runs 1.0.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::in_state(dir.path());
        let machine = Self { dir, slots };
        let one = machine.file("one");
        machine.slots.install(Slot::A, &one, "1.0", None).unwrap();
        machine
            .slots
            .set_current(&Current::running(Slot::A))
            .unwrap();
        machine
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join(text);
        fs::write(&path, format!("#!{text}")).unwrap();
        path
    }

    /// What the supervisor would start after a power cut now.
    fn starts(&self) -> (Slot, String) {
        let (slot, _) = choose(&self.slots, &self.file("factory")).unwrap();
        let text = fs::read_to_string(self.slots.agent(slot)).unwrap();
        (slot, text.trim_start_matches("#!").to_owned())
    }

    fn arm(&self) {
        let current = self.slots.current().unwrap().unwrap();
        let id = |text: &str| serde_json::Value::from(text);
        let command = serde_json::from_value(id("c-1")).unwrap();
        let rollout = serde_json::from_value(id("r-1")).unwrap();
        let version = "2.0".to_owned();
        self.slots.arm(&current, command, rollout, version).unwrap();
    }
}

#[test]
fn a_power_cut_after_any_step_of_an_installation_leaves_the_old_release_running() {
    for cut in 0..=Step::ALL.len() {
        let machine = Machine::new();
        let two = machine.file("two");
        let filling = Filling {
            from: &two,
            version: "2.0",
            wanted: None,
        };

        for step in &Step::ALL[..cut] {
            machine.slots.fill(Slot::B, &filling, *step).unwrap();
        }
        // And half of what the next step would have written.
        let torn = machine.slots.slot_dir(Slot::B);
        disk::make_dir(&torn).unwrap();
        fs::write(torn.join("longhaul-box.new"), "tw").unwrap();
        fs::write(torn.join("release.json.new"), "{").unwrap();

        assert_eq!(machine.starts(), (Slot::A, "one".to_owned()), "{cut}");
        let whole = machine.slots.sound(Slot::B).unwrap();
        assert_eq!(whole.is_some(), cut == Step::ALL.len(), "{cut}");
        // Doing it again from the start mends it.
        machine.slots.install(Slot::B, &two, "2.0", None).unwrap();
        assert_eq!(
            machine.slots.sound(Slot::B).unwrap().unwrap().version,
            "2.0"
        );
    }
}

#[test]
fn a_slot_is_never_filled_with_other_bytes_than_those_that_were_verified() {
    let machine = Machine::new();
    let wanted = sha256_of(&machine.file("two")).unwrap();

    let refused = machine
        .slots
        .install(Slot::B, &machine.file("three"), "2.0", Some(wanted))
        .unwrap_err();

    assert!(refused.to_string().contains(&wanted.to_string()));
    assert_eq!(machine.slots.release(Slot::B).unwrap(), None);
}

#[test]
fn a_trial_is_started_as_often_as_it_has_starts_and_then_given_up() {
    let machine = Machine::new();
    let two = machine.file("two");
    machine.slots.install(Slot::B, &two, "2.0", None).unwrap();
    machine.arm();

    for _ in 0..TRIAL_BOOTS {
        assert_eq!(machine.starts(), (Slot::B, "two".to_owned()));
    }

    assert_eq!(machine.starts(), (Slot::A, "one".to_owned()));
    let current = machine.slots.current().unwrap().unwrap();
    let reason = current.last.unwrap().reason.unwrap();
    assert!(reason.contains("start"), "{reason}");
}

#[test]
fn a_damaged_slot_is_not_started() {
    let machine = Machine::new();
    let two = machine.file("two");
    machine.slots.install(Slot::B, &two, "2.0", None).unwrap();

    // On trial: the old one runs on.
    machine.arm();
    fs::write(machine.slots.agent(Slot::B), "twi").unwrap();
    assert_eq!(machine.starts(), (Slot::A, "one".to_owned()));
    let last = machine.slots.current().unwrap().unwrap().last.unwrap();
    assert!(last.reason.unwrap().contains("damaged"));

    // The active one, where the other one was rolled back: what the supervisor consists of does.
    machine.slots.install(Slot::B, &two, "2.0", None).unwrap();
    fs::write(machine.slots.agent(Slot::A), "").unwrap();
    assert_eq!(machine.starts(), (Slot::A, "factory".to_owned()));

    // The active one, where the other one is as good: it takes its place.
    let current = Current::running(Slot::A);
    machine.slots.set_current(&current).unwrap();
    fs::remove_file(machine.slots.agent(Slot::A)).unwrap();
    assert_eq!(machine.starts(), (Slot::B, "two".to_owned()));
}

#[test]
fn a_state_that_cannot_be_read_does_not_keep_the_box_from_starting() {
    let machine = Machine::new();
    for garbage in ["", "{", "\u{0}\u{0}", r#"{"active":"c"}"#] {
        fs::write(machine.slots.dir.join("current.json"), garbage).unwrap();
        assert_eq!(machine.starts(), (Slot::A, "one".to_owned()), "{garbage:?}");
    }
}
