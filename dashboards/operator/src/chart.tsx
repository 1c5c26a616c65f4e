import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { now } from "./api";
import { bytes } from "./format";
import type { Point } from "./types";

type Value = number | null;

interface Series {
  label: string;
  unit: (value: number) => string;
  values: (points: readonly Point[]) => Value[];
}

interface View {
  name: string;
  /** The second has an axis of its own, to the right. */
  series: readonly Series[];
}

const plain = (value: number) => String(Math.round(value * 100) / 100);
const rate = (value: number) => `${bytes(value)}/s`;

const HEAT = "Hottest, °C";

const VIEWS: readonly View[] = [
  {
    name: "Load",
    series: [
      { label: "Load (1 min)", unit: plain, values: (points) => points.map((p) => p.load_1m) },
      { label: HEAT, unit: plain, values: (points) => points.map((p) => p.celsius ?? null) },
    ],
  },
  { name: "Memory", series: [{ label: "In use", unit: bytes, values: (points) => points.map((p) => p.memory_used_bytes) }] },
  {
    name: "Network",
    series: [
      { label: "Sent", unit: rate, values: (points) => rates(points, (p) => p.network_sent_bytes) },
      { label: "Received", unit: rate, values: (points) => rates(points, (p) => p.network_received_bytes) },
    ],
  },
  { name: "Waiting", series: [{ label: "Waiting for delivery", unit: bytes, values: (points) => points.map((p) => p.pending_bytes ?? null) }] },
];

const POWERS = Array.from({ length: 60 }, (_, i) => 2 ** i);

/** How the time of day is written below the chart. */
const CLOCK = { hour: "2-digit", minute: "2-digit", hour12: false } as const;

/** At least this much time is shown, in milliseconds. */
const LEAST_MS = 5 * 60_000;

/** How often the chart moves on where nothing comes, in milliseconds. */
const TICK_MS = 10_000;

const dark = matchMedia("(prefers-color-scheme: dark)");

/** Telemetry over time. What a screen reader needs is in the figures beside it. `longestMs` is the
 * time between two points where nothing is missing. */
export function Chart({ points, longestMs }: { points: readonly Point[]; longestMs: number }) {
  const hot = points.some((p) => p.celsius != null);
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [chosen, setChosen] = useState("Load");
  const view = useMemo(() => shown(chosen, hot), [chosen, hot]);
  const [scheme, setScheme] = useState(dark.matches);
  const latest = useRef<uPlot.AlignedData>([[]]);
  latest.current = columns(points, view.series, longestMs);

  useEffect(() => {
    const change = () => setScheme(dark.matches);
    dark.addEventListener("change", change);
    return () => dark.removeEventListener("change", change);
  }, []);

  useEffect(() => {
    const here = place.current;
    if (here === null) return undefined;
    const made = new uPlot(options(here, view), latest.current, here);
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize(size(here)));
    watch.observe(here);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [view, scheme]);

  const tick = Math.floor(now.value / TICK_MS);
  useEffect(() => plot.current?.setData(latest.current), [points, longestMs, tick]);
  return (
    <>
      <div class="tabs" role="group" aria-label="What the chart shows">
        {VIEWS.map((one) => (
          <button key={one.name} aria-pressed={one.name === view.name} onClick={() => setChosen(one.name)}>
            {one.name}
          </button>
        ))}
      </div>
      <div ref={place} class="chart" role="img" aria-label={`${view.name} over time`} data-points={points.length} />
    </>
  );
}

/** The view of this name; a box without sensors has no scale for heat. */
function shown(name: string, hot: boolean): View {
  const view = VIEWS.find((one) => one.name === name) ?? { name, series: [] };
  return hot ? view : { ...view, series: view.series.filter((series) => series.label !== HEAT) };
}

/** The time that is shown, in seconds. */
export function span(first: number | null, last: number | null, nowMs: number): [number, number] {
  const end = Math.max(last ?? 0, nowMs / 1000);
  return [Math.min(first ?? end, end - LEAST_MS / 1000), end];
}

const size = (here: HTMLElement) => ({ width: Math.max(here.clientWidth, 200), height: 220 });

function options(here: HTMLElement, view: View): uPlot.Options {
  const look = getComputedStyle(document.documentElement);
  const colour = (name: string) => look.getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--quiet"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    font: `12px ${look.fontFamily}`,
  };
  const clock = { ...axis, values: (_: uPlot, at: number[]) => at.map((s) => new Date(s * 1000).toLocaleTimeString([], CLOCK)), space: 80 };
  const shared = view.series.length > 1 && view.series[1]?.label !== HEAT;
  const scale = (i: number) => (i === 0 || shared ? "left" : "right");
  const axes: uPlot.Axis[] = [clock];
  for (const [i, series] of view.series.entries()) {
    if (i > 0 && shared) continue;
    axes.push({
      ...axis,
      scale: scale(i),
      side: i === 0 ? 3 : 1,
      size: series.unit === plain ? 44 : 76,
      values: (_, splits) => splits.map(series.unit),
      // Steps of bytes are round in powers of two.
      ...(series.unit !== plain && { incrs: POWERS }),
      ...(i > 0 && { grid: { show: false } }),
    });
  }
  const fromZero: uPlot.Scale = { range: (_, __, top) => [0, Math.max(top ?? 1, 1) * 1.05] };
  return {
    ...size(here),
    scales: {
      // Up to now: silence is to be seen at the end, too.
      x: { range: (_, first, last) => span(first, last, now.peek()) },
      left: fromZero,
      right: fromZero,
    },
    axes,
    legend: { markers: { width: 2 } },
    cursor: { drag: { x: false, y: false } },
    series: [
      { label: "Time", value: (_, at) => (at == null ? "–" : new Date(at * 1000).toLocaleTimeString()) },
      ...view.series.map((series, i) => ({
        label: series.label,
        scale: scale(i),
        stroke: colour(i === 0 ? "--accent" : "--warn"),
        width: 2,
        spanGaps: false,
        points: { show: false },
        value: (_: uPlot, value: Value) => (value == null ? "–" : series.unit(value)),
        ...(i > 0 && { dash: [6, 4] }),
      })),
    ],
  };
}

/** As uPlot wants them: columns, seconds, rising times; nothing is drawn across a time for which there are no samples. */
export function columns(points: readonly Point[], series: readonly Series[], longestMs: number): uPlot.AlignedData {
  const sorted = [...points].sort((a, b) => a.at - b.at);
  const gaps = missing(
    sorted.map((p) => p.at),
    longestMs,
  );
  const times: number[] = [];
  const rows: Value[][] = series.map(() => []);
  const values = series.map((one) => one.values(sorted));
  for (const [i, point] of sorted.entries()) {
    times.push(point.at / 1000);
    values.forEach((column, s) => rows[s]?.push(column[i] ?? null));
    if (gaps[i] === true) {
      times.push((point.at + 1) / 1000);
      for (const row of rows) row.push(null);
    }
  }
  return [times, ...rows];
}

/** Whether samples are missing after each of these times. They are if the next comes later than three
 * samples would, however often they came before or afterwards: the interval may have been changed. */
export function missing(times: readonly number[], longestMs: number): boolean[] {
  const after = (i: number) => (times[i + 1] ?? Infinity) - (times[i] ?? Infinity);
  return times.map((_, i) => {
    if (i === times.length - 1) return false;
    const around = [i > 0 ? after(i - 1) : Infinity, i < times.length - 2 ? after(i + 1) : Infinity];
    const usual = Math.min(...around);
    return after(i) > 3 * Math.max(longestMs, Number.isFinite(usual) ? usual : 0);
  });
}

/** What a counter rose by, per second; unknown at the first sample, and where it began anew. */
export function rates(points: readonly Point[], counter: (point: Point) => number | null | undefined): Value[] {
  return points.map((point, i) => {
    const before = points[i - 1];
    const [now, then] = [counter(point), before === undefined ? undefined : counter(before)];
    if (before === undefined || now == null || then == null || now < then || point.at <= before.at) return null;
    return (1000 * (now - then)) / (point.at - before.at);
  });
}
