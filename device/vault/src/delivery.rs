//! How far one version has come on its way to the bucket.

use std::collections::BTreeMap;

/// How far one version has come on its way to the bucket.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Delivery {
    /// Here and nowhere else.
    #[default]
    OnBox,
    /// An upload into the bucket is open.
    InFlight {
        /// What the cloud calls the upload.
        upload: String,
        /// `ETag` of every part that the bucket has acknowledged, by number.
        parts: BTreeMap<u32, String>,
    },
    /// The bucket holds it; nobody has checked yet.
    InCloud,
    /// The cloud has checked it in the bucket.
    Verified,
    /// Given up, until [`DeliveryEvent::Reset`].
    Failed {
        /// Why, for the customer.
        reason: String,
    },
}

/// Something that happened to a version on its way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DeliveryEvent {
    /// The cloud opened upload `upload`.
    Started {
        /// What the cloud calls the upload.
        upload: String,
    },
    /// The bucket acknowledged one part.
    PartDone {
        /// The part's number in the bucket's upload.
        number: u32,
        /// The bucket's `ETag` for it.
        etag: String,
    },
    /// The upload is complete.
    Delivered,
    /// The cloud checked the object in the bucket.
    Verified,
    /// It cannot be delivered.
    Failed {
        /// Why, for the customer.
        reason: String,
    },
    /// Begin again from [`Delivery::OnBox`].
    Reset,
    /// The bytes are no longer needed here; only after [`Delivery::Verified`].
    Released,
}

/// The event means nothing in the state that the version is in.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("delivery cannot go from {from} by {event}")]
pub struct InvalidTransition {
    from: &'static str,
    event: &'static str,
}

impl Delivery {
    /// True while there is still something to do for the version.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::OnBox | Self::InFlight { .. } | Self::InCloud)
    }

    /// The state's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OnBox => "on-box",
            Self::InFlight { .. } => "in-flight",
            Self::InCloud => "in-cloud",
            Self::Verified => "verified",
            Self::Failed { .. } => "failed",
        }
    }

    /// Says whether `event` may happen now.
    ///
    /// # Errors
    ///
    /// [`InvalidTransition`] if `event` means nothing in this state.
    pub fn permits(&self, event: &DeliveryEvent) -> Result<(), InvalidTransition> {
        use DeliveryEvent as E;
        let fits = match event {
            E::Started { .. } => matches!(self, Self::OnBox),
            E::PartDone { .. } => matches!(self, Self::InFlight { .. }),
            // A small object goes in one request, without an upload; a restart may find it done.
            E::Delivered => matches!(self, Self::OnBox | Self::InFlight { .. }),
            E::Verified => matches!(self, Self::InCloud),
            E::Failed { .. } => self.is_pending(),
            E::Reset => !matches!(self, Self::Verified),
            E::Released => matches!(self, Self::Verified),
        };
        if fits {
            return Ok(());
        }
        Err(InvalidTransition {
            from: self.name(),
            event: event.name(),
        })
    }

    /// Applies `event`. [`DeliveryEvent::Released`] leaves the state as it is.
    ///
    /// # Errors
    ///
    /// [`InvalidTransition`] if `event` means nothing in this state; nothing has changed then.
    pub fn step(&mut self, event: DeliveryEvent) -> Result<(), InvalidTransition> {
        self.permits(&event)?;
        match event {
            DeliveryEvent::Started { upload } => {
                *self = Self::InFlight {
                    upload,
                    parts: BTreeMap::new(),
                };
            }
            DeliveryEvent::PartDone { number, etag } => {
                if let Self::InFlight { parts, .. } = self {
                    parts.insert(number, etag);
                }
            }
            DeliveryEvent::Delivered => *self = Self::InCloud,
            DeliveryEvent::Verified => *self = Self::Verified,
            DeliveryEvent::Failed { reason } => *self = Self::Failed { reason },
            DeliveryEvent::Reset => *self = Self::OnBox,
            DeliveryEvent::Released => {}
        }
        Ok(())
    }
}

impl DeliveryEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::PartDone { .. } => "part done",
            Self::Delivered => "delivered",
            Self::Verified => "verified",
            Self::Failed { .. } => "failed",
            Self::Reset => "reset",
            Self::Released => "released",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_flight() -> Delivery {
        Delivery::InFlight {
            upload: "u".into(),
            parts: BTreeMap::new(),
        }
    }

    #[test]
    fn bytes_are_released_only_after_they_were_verified() {
        for state in [Delivery::OnBox, in_flight(), Delivery::InCloud] {
            assert!(
                state.permits(&DeliveryEvent::Released).is_err(),
                "{state:?}"
            );
        }
        assert!(Delivery::Verified.permits(&DeliveryEvent::Released).is_ok());
    }

    #[test]
    fn a_part_belongs_to_an_open_upload() {
        let part = DeliveryEvent::PartDone {
            number: 1,
            etag: "e".into(),
        };
        assert!(Delivery::OnBox.permits(&part).is_err());

        let mut state = in_flight();
        state.step(part).expect("an upload is open");

        let parts = BTreeMap::from([(1, "e".to_owned())]);
        assert_eq!(
            state,
            Delivery::InFlight {
                upload: "u".into(),
                parts
            }
        );
    }

    #[test]
    fn a_failed_delivery_begins_again_only_by_a_reset() {
        let mut state = Delivery::Failed {
            reason: "403".into(),
        };
        assert!(!state.is_pending());
        assert!(state.permits(&DeliveryEvent::Delivered).is_err());

        state
            .step(DeliveryEvent::Reset)
            .expect("a reset is always possible");

        assert_eq!(state, Delivery::OnBox);
    }
}
