/** One record as a line of RFC 4180, ending in LF; fields are quoted where they must be. */
export function encodeRecord(fields: readonly string[]): string {
  const encoded = fields.map((field) =>
    /[",\r\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field,
  );
  return `${encoded.join(',')}\n`;
}
