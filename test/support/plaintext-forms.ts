/**
 * The ways in which a text could stand in bytes that someone looks at: plain, hex, UTF-16 in both orders, and base64
 * whatever came before it in the same encoded piece.
 */
export function plaintextForms(canary: string | Uint8Array): readonly Buffer[] {
  const plain = Buffer.from(canary);
  const hex = plain.toString('hex');
  const utf16 = Buffer.from(plain.toString('latin1'), 'utf16le');
  const base64 = [0, 1, 2].flatMap((offset) => {
    // Of three offsets one is right; what depends on neighbouring bytes is cut off.
    const text = Buffer.concat([Buffer.alloc(offset), plain]).toString('base64');
    const inner = text.slice(offset === 0 ? 0 : 4, -4);
    return [inner, inner.replaceAll('+', '-').replaceAll('/', '_')];
  });
  return [
    plain,
    utf16,
    Buffer.from(utf16).swap16(),
    ...[hex, hex.toUpperCase(), ...base64].map((text) => Buffer.from(text)),
  ];
}

/** Which of the named canaries stand in `bytes`, in whatever form. */
export function canariesIn(
  bytes: Uint8Array,
  canaries: Readonly<Record<string, string | Uint8Array>>,
): readonly string[] {
  const haystack = Buffer.from(bytes);
  return Object.entries(canaries)
    .filter(([, canary]) => plaintextForms(canary).some((form) => haystack.includes(form)))
    .map(([name]) => name);
}
