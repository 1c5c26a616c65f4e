import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Point } from "./types";

/** Load and the hottest sensor over time. What a screen reader needs is in the table beside it. */
export function Chart({ points }: { points: readonly Point[] }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);

  useEffect(() => {
    const here = place.current;
    if (here === null) return undefined;
    const look = getComputedStyle(document.documentElement);
    const colour = (name: string) => look.getPropertyValue(name).trim();
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const size = () => ({ width: Math.max(here.clientWidth, 200), height: 220 });
    const made = new uPlot(
      {
        ...size(),
        scales: { load: { range: (_, __, top) => [0, Math.max(top ?? 1, 1)] }, heat: {} },
        axes: [axis, { ...axis, scale: "load" }, { ...axis, scale: "heat", side: 1, grid: { show: false } }],
        series: [
          { label: "Time" },
          { label: "Load (1 min)", scale: "load", stroke: colour("--accent"), width: 2 },
          { label: "Hottest °C", scale: "heat", stroke: colour("--warn"), width: 2, dash: [6, 4] },
        ],
      },
      columns([]),
      here,
    );
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize(size()));
    watch.observe(here);
    return () => {
      watch.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, []);

  useEffect(() => plot.current?.setData(columns(points)), [points]);
  return <div ref={place} class="chart" role="img" aria-label="Load and temperature over time" />;
}

/** As uPlot wants them: columns, seconds, rising times. */
export function columns(points: readonly Point[]): uPlot.AlignedData {
  const sorted = [...points].sort((a, b) => a.at - b.at);
  return [sorted.map((p) => p.at / 1000), sorted.map((p) => p.load_1m), sorted.map((p) => p.celsius ?? null)];
}
