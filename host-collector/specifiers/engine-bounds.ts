/** Bounds of one VM's engine; each states what happens beyond it. */
export interface EngineBounds {
  /** Consecutive empty windows delivered one by one; of a longer run all but the newest so many come as one wide window. */
  readonly emptyWindowsMax: number;
  /** A raw window with more measurements is delivered in parts while it is open. */
  readonly rawWindowMeasurementsMax: number;
  /** Measurements in one delivery; a window with more comes in several deliveries of the same revision. */
  readonly deliveryMeasurementsMax: number;
  /** Delivered windows that a specifier keeps for revisions; the oldest are forgotten first. */
  readonly closedWindowsMax: number;
  /** Measurements in them; the oldest windows are forgotten first. */
  readonly closedMeasurementsMax: number;
  /** A delivered window is kept until the watermark is this far beyond its end; rows later than that are counted as lost. */
  readonly revisionHorizonMs: number;
  /** Windows that a specifier keeps open; rows beyond the newest of so many are counted as lost (a clock far ahead). */
  readonly openWindowsMax: number;
  /** Ticks that wait for a watermark, for each specifier; beyond it the oldest is measured with what is there. */
  readonly pendingTicksMax: number;
  /** Data points that a specifier follows; measurements of further ones are dropped and counted. */
  readonly dataPointsMax: number;
}

export const engineBoundsDefault: EngineBounds = {
  emptyWindowsMax: 60,
  rawWindowMeasurementsMax: 100_000,
  deliveryMeasurementsMax: 2_000,
  closedWindowsMax: 256,
  closedMeasurementsMax: 100_000,
  revisionHorizonMs: 60_000,
  openWindowsMax: 4_096,
  pendingTicksMax: 10_000,
  dataPointsMax: 10_000,
};
