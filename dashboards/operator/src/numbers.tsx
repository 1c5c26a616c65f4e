import { bytes, count, pointOf } from "./format";
import type { BoxDetail } from "./types";

/** The last sample in figures. */
export function Numbers({ detail }: { detail: BoxDetail }) {
  const sample = detail.telemetry;
  if (sample == null) return <p class="quiet">No sample yet.</p>;
  const point = pointOf(sample, 0);
  const disk = sample.disks.reduce<(typeof sample.disks)[number] | undefined>(
    (least, one) => (least === undefined || one.free_bytes < least.free_bytes ? one : least),
    undefined,
  );
  const figures: [string, string][] = [
    ["Load", sample.load_1m.toFixed(2)],
    ["Memory", `${bytes(point.memory_used_bytes)} of ${bytes(sample.memory_total_bytes)}`],
  ];
  if (disk !== undefined) figures.push(["Disk free", `${bytes(disk.free_bytes)} of ${bytes(disk.total_bytes)}`]);
  if (point.celsius != null) figures.push(["Hottest", `${point.celsius} °C`]);
  if (sample.vault != null) {
    figures.push(["Store", `${bytes(sample.vault.used_bytes)} of ${bytes(sample.vault.capacity_bytes)}`]);
    figures.push(["Waiting", `${count(sample.vault.pending_objects, "object")}, ${bytes(sample.vault.pending_bytes)}`]);
  }
  return (
    <dl class="figures">
      {figures.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
