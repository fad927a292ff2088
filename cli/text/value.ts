import type { Value } from '../../common/wire/value.ts';
import { formatDurationMs } from './duration.ts';
import { printable } from './style.ts';

const byteUnits = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'] as const;
const shownBytesMax = 16;

/**
 * A value as a person reads it. Quantities that name their unit (`memory/used_bytes`, `cpu/usage_ratio`, `cpu/time_us`)
 * are scaled where `isScaled` (a terminal), else exact; what an application saved is shown exactly as it is.
 */
export function formatValue(
  value: Value,
  dataPoint: string,
  options: { readonly isScaled: boolean },
): string {
  if (value === null) return '(empty)';
  if (value instanceof Uint8Array) return formatOpaque(value);
  if (typeof value === 'string') return printable(value);
  if (options.isScaled && dataPoint.startsWith('infra/')) {
    return formatQuantity(Number(value), dataPoint);
  }
  return String(value);
}

/** `1.5 GiB`; exact below 1 KiB. */
export function formatBytes(sizeBytes: number): string {
  let scaled = sizeBytes;
  let unitIndex = 0;
  while (Math.abs(scaled) >= 1_024 && unitIndex < byteUnits.length - 1) {
    scaled /= 1_024;
    unitIndex += 1;
  }
  const digits = unitIndex === 0 ? 0 : 1;
  return `${scaled.toFixed(digits)} ${byteUnits[unitIndex] ?? ''}`;
}

/** 1234567 as `1,234,567`, whatever the locale. */
export function formatCount(count: number): string {
  return String(count).replaceAll(/\B(?=(?:\d{3})+$)/g, ',');
}

function formatQuantity(quantity: number, dataPoint: string): string {
  if (dataPoint.endsWith('_bytes')) return formatBytes(quantity);
  if (dataPoint.endsWith('_ratio')) return `${(quantity * 100).toFixed(1)} %`;
  if (dataPoint.endsWith('_us')) return formatDurationMs(quantity / 1_000);
  return String(quantity);
}

function formatOpaque(bytes: Uint8Array): string {
  const head = Buffer.from(bytes.subarray(0, shownBytesMax)).toString('hex');
  const rest = bytes.byteLength > shownBytesMax ? '…' : '';
  return `${bytes.byteLength} bytes ${head}${rest}`;
}
