//! Which boxes may in, in memory, as the database has it.

use std::collections::HashMap;

use longhaul_broker::{Admission, Refused};
use longhaul_protocol::ids::BoxId;
use parking_lot::RwLock;

use crate::store::boxes::{BoxFilter, BoxState, box_list};
use crate::store::{Db, StoreError};

/// Boxes read at once.
const PAGE: u32 = 1000;

/// The state of every box; changed only after the database was.
#[derive(Debug, Default)]
pub struct Admitted(RwLock<HashMap<BoxId, BoxState>>);

impl Admitted {
    /// Reads what the database has.
    pub async fn load(db: &Db) -> Result<Self, StoreError> {
        let (mut states, mut after) = (HashMap::new(), None);
        let mut tx = db.read().await?;
        loop {
            let page = box_list(&mut tx, &BoxFilter::default(), after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(Self(RwLock::new(states)));
            };
            after = Some(last.box_id.clone());
            states.extend(page.into_iter().map(|row| (row.box_id, row.state)));
        }
    }

    /// Takes over the state of one box.
    pub fn set(&self, box_id: &BoxId, state: BoxState) {
        self.0.write().insert(box_id.clone(), state);
    }

    /// Takes over what the database had a moment ago: a box that was thrown out stays out.
    pub fn follow(&self, box_id: &BoxId, state: BoxState) {
        let mut boxes = self.0.write();
        if boxes.get(box_id) != Some(&BoxState::Revoked) {
            boxes.insert(box_id.clone(), state);
        }
    }

    /// Takes over that a box has enrolled, unless it was put into another state since.
    pub fn activate(&self, box_id: &BoxId) {
        let mut boxes = self.0.write();
        if boxes.get(box_id) == Some(&BoxState::Inventoried) {
            boxes.insert(box_id.clone(), BoxState::Active);
        }
    }

    /// What is known of a box.
    pub fn get(&self, box_id: &BoxId) -> Option<BoxState> {
        self.0.read().get(box_id).copied()
    }
}

impl Admission for Admitted {
    fn admit(&self, box_id: &BoxId, _cert_der: &[u8]) -> Result<(), Refused> {
        match self.get(box_id) {
            Some(BoxState::Active | BoxState::Quarantined) => Ok(()),
            Some(BoxState::Revoked) => Err(Refused::Revoked),
            Some(BoxState::Inventoried) | None => Err(Refused::NotAdmitted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_boxes_that_have_enrolled_and_were_not_thrown_out_may_in() {
        let admitted = Admitted::default();
        let id = |text: &str| text.parse::<BoxId>().expect("a box id");
        admitted.set(&id("00000000000A"), BoxState::Active);
        admitted.set(&id("00000000000B"), BoxState::Quarantined);
        admitted.set(&id("00000000000C"), BoxState::Inventoried);
        admitted.set(&id("00000000000D"), BoxState::Revoked);

        let admit = |text: &str| admitted.admit(&id(text), &[]);
        assert_eq!(admit("00000000000A"), Ok(()));
        assert_eq!(admit("00000000000B"), Ok(()));
        assert_eq!(admit("00000000000C"), Err(Refused::NotAdmitted));
        assert_eq!(admit("00000000000D"), Err(Refused::Revoked));
        assert_eq!(admit("00000000000E"), Err(Refused::NotAdmitted));
    }
}
