const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** `90s` or `1h30m` in milliseconds; undefined when `text` is no duration. Units: ms, s, m, h, d. */
export function parseDurationMs(text: string): number | undefined {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  if (parts.length === 0 || parts.map(([part]) => part).join('') !== text) return undefined;
  return parts.reduce(
    (sumMs, [, amount, unit]) => sumMs + Number(amount) * unitMs[unit as keyof typeof unitMs],
    0,
  );
}

/** A duration in the largest unit that keeps it readable: `820 ms`, `4.2 s`, `3 min`, `2 h 5 min`, `9 d`. */
export function formatDurationMs(durationMs: number): string {
  const positiveMs = Math.max(0, durationMs);
  if (positiveMs < 1_000) return `${Math.round(positiveMs)} ms`;
  if (positiveMs < 10_000) return `${(positiveMs / 1_000).toFixed(1)} s`;
  if (positiveMs < 60_000) return `${Math.round(positiveMs / 1_000)} s`;
  const minutes = Math.floor(positiveMs / 60_000);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d`;
}
