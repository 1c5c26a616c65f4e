//! Reading everything, to find damage before a customer does.

use std::sync::Arc;

use crate::{
    Error, ScrubReport, codec::wide, core::Core, keyring::JobNo, op::Body, reader::BodyReader,
};

/// Reads and verifies every object and part that is there when its turn comes.
pub(crate) fn scrub(core: &Arc<Core>) -> ScrubReport {
    let mut report = ScrubReport::default();
    let jobs = core.index.read().jobs();
    for job in jobs {
        let runs = core.index.read().runs(job);
        for run in runs.iter().flat_map(|runs| runs.iter()) {
            let damaged = run.verify().into_iter();
            report
                .damaged
                .extend(damaged.map(|error| core.tell(&error, Some(job), "", 0)));
        }
    }
    let mut version = None;
    loop {
        // One at a time: nobody waits for the scrub, and what is deleted meanwhile is skipped.
        let found = core.index.read().version_after(version);
        let Some(next) = found else { break };
        version = Some(next);
        // Each block of the index was reported once, above.
        if let Ok((info, job, Some(body))) = core.open(next, "") {
            let name = (info.job.to_string(), info.key, next.0);
            read(core, job, name, body, &mut report);
        }
    }
    let mut part = None;
    loop {
        let found = core.index.read().part_after(part);
        let Some((id, number)) = found else { break };
        part = Some((id, number));
        let opened = core.index.read().open_part(id, number);
        if let Some((upload, job, body)) = opened {
            let key = format!("{} (upload {id}, part {number})", upload.key);
            read(
                core,
                job,
                (upload.job.to_string(), key, 0),
                body,
                &mut report,
            );
        }
    }
    report
}

fn read(
    core: &Arc<Core>,
    job: JobNo,
    name: (String, String, u64),
    body: Body,
    report: &mut ScrubReport,
) {
    let size = body.iter().map(|extent| extent.len()).sum();
    let mut reader = BodyReader::new(Arc::clone(core), job, name.clone(), body, 0..size);
    report.objects += 1;
    loop {
        match reader.next_chunk() {
            Ok(Some(chunk)) => report.bytes += wide(chunk.len()),
            // At the end, or the job was erased meanwhile.
            Ok(None) | Err(Error::NoSuchJob(_)) => return,
            Err(Error::Damaged(damage)) => {
                report.damaged.push(*damage);
                // One damaged frame says nothing about the next.
                if !reader.skip_chunk() {
                    return;
                }
            }
            Err(error) => {
                let (job, key, version) = name;
                let place = error.to_string();
                report.damaged.push(crate::Damage {
                    job,
                    key,
                    version,
                    place,
                });
                return;
            }
        }
    }
}
