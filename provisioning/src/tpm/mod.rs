//! The TPM of this machine. One thread owns it: a chip takes 200 to 600 ms for a signature, so
//! every call here blocks for as long; call from a thread that may wait.

mod adapters;
mod evidence;
mod keys;
mod seal;
mod session;
mod slots;
pub mod soft;

pub use adapters::TpmSigner;
pub use evidence::Attested;
pub use keys::Key;
pub use seal::Sealed;
pub use slots::NvSlot;

use std::str::FromStr;
use std::sync::{Arc, mpsc};
use std::thread;

use tss_esapi::constants::{CapabilityType, StartupType};
use tss_esapi::handles::{KeyHandle, NvIndexTpmHandle, TpmHandle};
use tss_esapi::interface_types::resource_handles::NvAuth;
use tss_esapi::structures::CapabilityData;
use tss_esapi::{Context, TctiNameConf};

/// Where transient handles begin (TPM 2.0 Library, Part 2, section 7.5).
const TRANSIENT_FIRST: u32 = 0x8000_0000;
/// More transient objects than any TPM holds.
const MAX_TRANSIENT: u32 = 64;
/// Jobs that wait for the TPM at the most.
const QUEUE: usize = 64;

/// Why the TPM did not do as it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// The configuration text names no TPM.
    #[error("not a TCTI configuration: {0:?}")]
    Tcti(String),
    /// There is no TPM where the configuration says.
    #[error(
        "no TPM answers at {tcti:?}: is it there, switched on in the firmware, and may this user \
         open it?"
    )]
    Open {
        /// The TCTI configuration.
        tcti: String,
        /// What the library said.
        source: tss_esapi::Error,
    },
    /// The TPM refused, or could not be reached.
    #[error("TPM failed to {what}")]
    Tss {
        /// What it was asked to do.
        what: &'static str,
        /// What it said.
        source: tss_esapi::Error,
    },
    /// There is no certificate for an endorsement key of a kind that we know.
    #[error("TPM holds no endorsement key certificate (RSA 2048 or ECC P-384)")]
    NoEkCertificate,
    /// A key that should be there is not.
    #[error("TPM holds no {0:?} key: this box has not been through the factory")]
    NoKey(Key),
    /// The TPM answered something that makes no sense.
    #[error("TPM answered nonsense when asked to {0}")]
    Nonsense(&'static str),
    /// An argument is longer than a TPM takes.
    #[error("{0} is too long for a TPM")]
    TooLong(&'static str),
    /// A PCR that no TPM has.
    #[error("there is no PCR {0}")]
    NoPcr(u8),
    /// A secret that nothing would guard but the chip.
    #[error("a secret is sealed over at least one PCR")]
    NoPolicy,
    /// The machine is in another state than when the secret was sealed.
    #[error(
        "TPM refuses to unseal: {} not what it was when the secret was sealed",
        pcr_names(.0)
    )]
    StateChanged(Vec<u8>),
    /// The thread of the TPM has ended.
    #[error("the TPM's thread has ended")]
    Closed,
}

fn pcr_names(pcrs: &[u8]) -> String {
    let names: Vec<_> = pcrs.iter().map(ToString::to_string).collect();
    match names.as_slice() {
        [one] => format!("PCR {one} is"),
        many => format!("PCRs {} are", many.join(", ")),
    }
}

/// Names what was asked, where the TPM says no.
trait Asked<T> {
    fn asked(self, what: &'static str) -> Result<T, TpmError>;
}

impl<T> Asked<T> for tss_esapi::Result<T> {
    fn asked(self, what: &'static str) -> Result<T, TpmError> {
        self.map_err(|source| TpmError::Tss { what, source })
    }
}

type Job = Box<dyn FnOnce(&mut Context) + Send>;

/// A TPM; clones ask the same one.
#[derive(Clone, Debug)]
pub struct Tpm(Arc<Worker>);

/// The thread that the TPM's library is used on. It has ended when the last clone is gone: at the
/// end of a process the library's own libraries are taken down, and whoever is in them then crashes.
#[derive(Debug)]
struct Worker {
    /// Absent only while this ends.
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // The last clone may go inside a job; that thread cannot wait for itself.
        let other =
            |thread: &thread::JoinHandle<()>| thread.thread().id() != thread::current().id();
        if let Some(thread) = self.thread.take().filter(other) {
            // A job that panicked has ended, too.
            let _ = thread.join();
        }
    }
}

impl Tpm {
    /// Opens the TPM that `tcti` names: `device:/dev/tpmrm0`, or a software one as
    /// `swtpm:host=127.0.0.1,port=2321`.
    pub fn open(tcti: &str) -> Result<Self, TpmError> {
        let name = TctiNameConf::from_str(tcti).map_err(|_| TpmError::Tcti(tcti.to_owned()))?;
        let mut context = Context::new(name).map_err(|source| TpmError::Open {
            tcti: tcti.to_owned(),
            source,
        })?;
        forget_leftovers(&mut context)?;
        let (jobs, inbox) = mpsc::sync_channel::<Job>(QUEUE);
        let thread = thread::Builder::new()
            .name("tpm".to_owned())
            .spawn(move || {
                for job in inbox {
                    job(&mut context);
                }
            })
            .map_err(|_| TpmError::Closed)?;
        Ok(Self(Arc::new(Worker {
            jobs: Some(jobs),
            thread: Some(thread),
        })))
    }

    /// The certificate of the endorsement key (DER), as the TPM's maker wrote it.
    pub fn ek_certificate(&self) -> Result<Vec<u8>, TpmError> {
        self.call(|context| evidence::ek(context).map(|(certificate, _)| certificate))
    }

    /// The `TPMT_PUBLIC` of a key, where it is there.
    pub fn public(&self, key: Key) -> Result<Vec<u8>, TpmError> {
        self.call(move |context| {
            let handle = keys::find(context, key)?;
            keys::public(context, handle)
        })
    }

    /// Makes a key, replacing what was in its place, and returns its `TPMT_PUBLIC`.
    pub fn create(&self, key: Key) -> Result<Vec<u8>, TpmError> {
        self.call(move |context| {
            let handle = keys::create(context, key)?;
            keys::public(context, handle)
        })
    }

    /// A key for signing under TLS and in certificate requests.
    pub fn signer(&self, key: Key) -> Result<TpmSigner, TpmError> {
        TpmSigner::new(self.clone(), key, &self.public(key)?)
    }

    /// `TPM2_ActivateCredential` for the attestation key: proves that endorsement key and
    /// attestation key are in one TPM.
    pub fn activate(&self, blob: &[u8], secret: &[u8]) -> Result<Vec<u8>, TpmError> {
        let (blob, secret) = (blob.to_vec(), secret.to_vec());
        self.call(move |context| evidence::activate(context, blob, secret))
    }

    /// `TPM2_Certify` of a key by the attestation key.
    pub fn certify(&self, key: Key, nonce: &[u8]) -> Result<Attested, TpmError> {
        let nonce = nonce.to_vec();
        self.call(move |context| evidence::certify(context, key, nonce))
    }

    /// `TPM2_Quote` of PCRs of the SHA-256 bank by the attestation key.
    pub fn quote(&self, nonce: &[u8], pcrs: &[u8]) -> Result<Attested, TpmError> {
        let (nonce, pcrs) = (nonce.to_vec(), pcrs.to_vec());
        self.call(move |context| evidence::quote(context, nonce, &pcrs))
    }

    /// The values of PCRs of the SHA-256 bank, in the order asked for.
    pub fn pcrs(&self, pcrs: &[u8]) -> Result<Vec<[u8; 32]>, TpmError> {
        let pcrs = pcrs.to_vec();
        self.call(move |context| evidence::pcrs(context, &pcrs))
    }

    /// Extends a PCR of the SHA-256 bank, as firmware does with what it has measured. Nothing but a
    /// restart of the machine takes it back.
    pub fn extend(&self, pcr: u8, digest: [u8; 32]) -> Result<(), TpmError> {
        self.call(move |context| evidence::extend(context, pcr, &digest))
    }

    /// Says that the machine is being switched off, as its kernel does: otherwise the TPM takes it for
    /// a power cut.
    pub fn shut_down(&self) -> Result<(), TpmError> {
        self.call(|context| {
            context
                .execute_without_session(|c| c.shutdown(StartupType::Clear))
                .asked("shut down")
        })
    }

    /// Seals at most 128 bytes: only this TPM opens them again, and only while these PCRs of the
    /// SHA-256 bank have the values that they have now.
    pub fn seal(&self, data: &[u8], pcrs: &[u8]) -> Result<Sealed, TpmError> {
        let data = zeroize::Zeroizing::new(data.to_vec());
        let pcrs = pcrs.to_vec();
        self.call(move |context| seal::seal(context, &data, &pcrs))
    }

    /// Opens what [`Tpm::seal`] sealed; [`TpmError::StateChanged`] names the PCRs that differ.
    pub fn unseal(&self, sealed: &Sealed) -> Result<zeroize::Zeroizing<Vec<u8>>, TpmError> {
        let sealed = sealed.clone();
        self.call(move |context| seal::unseal(context, &sealed))
    }

    /// What a slot of the TPM's own memory holds.
    pub fn slot(&self, slot: NvSlot) -> Result<Option<zeroize::Zeroizing<[u8; 32]>>, TpmError> {
        self.call(move |context| slots::read(context, slot))
    }

    /// Puts a secret into a slot of the TPM's own memory, instead of what it holds.
    pub fn fill_slot(&self, slot: NvSlot, secret: &[u8; 32]) -> Result<(), TpmError> {
        let secret = zeroize::Zeroizing::new(*secret);
        self.call(move |context| slots::write(context, slot, &secret))
    }

    /// Destroys what a slot of the TPM's own memory holds.
    pub fn empty_slot(&self, slot: NvSlot) -> Result<(), TpmError> {
        self.call(move |context| slots::forget(context, slot))
    }

    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Context) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |context| {
            // Whoever asked may have given up waiting.
            let _ = reply.send(work(context));
        });
        let jobs = self.0.jobs.as_ref().ok_or(TpmError::Closed)?;
        jobs.send(job).map_err(|_| TpmError::Closed)?;
        answer.recv().map_err(|_| TpmError::Closed)?
    }
}

/// A software TPM keeps what a killed process left behind in its few transient places; a kernel
/// would have removed it.
fn forget_leftovers(context: &mut Context) -> Result<(), TpmError> {
    let what = "look at its transient objects";
    let (data, _) = context
        .execute_without_session(|c| {
            c.get_capability(CapabilityType::Handles, TRANSIENT_FIRST, MAX_TRANSIENT)
        })
        .asked(what)?;
    let CapabilityData::Handles(handles) = data else {
        return Err(TpmError::Nonsense(what));
    };
    for handle in handles
        .iter()
        .filter(|h| matches!(h, TpmHandle::Transient(_)))
    {
        let object = context
            .execute_without_session(|c| c.tr_from_tpm_public(*handle))
            .asked(what)?;
        flush(context, object.into())?;
    }
    Ok(())
}

/// Whether there is such an NV index.
fn nv_defined(context: &mut Context, index: NvIndexTpmHandle) -> Result<bool, TpmError> {
    let defined = tss_esapi::abstraction::nv::list(context).asked("list its NV indices")?;
    Ok(defined.iter().any(|(public, _)| public.nv_index() == index))
}

/// Everything in an NV index, where it is defined.
fn nv_read(context: &mut Context, index: u32) -> Result<Option<Vec<u8>>, TpmError> {
    let handle = NvIndexTpmHandle::new(index).asked("name an NV index")?;
    if !nv_defined(context, handle)? {
        return Ok(None);
    }
    context
        .execute_with_nullauth_session(|c| {
            tss_esapi::abstraction::nv::read_full(c, NvAuth::Owner, handle)
        })
        .asked("read an NV index")
        .map(Some)
}

/// Forgets a transient object: a TPM has about three places for them.
fn flush(context: &mut Context, handle: KeyHandle) -> Result<(), TpmError> {
    context
        .flush_context(handle.into())
        .asked("forget a transient object")
}
