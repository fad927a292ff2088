import {
  DerError,
  derBoolean,
  derElement,
  derElements,
  derObjectIdentifier,
  derTag,
  expectTag,
  type DerElement,
} from './der.ts';

/** An extension of a certificate or a revocation list (RFC 5280, 4.1). */
export interface Extension {
  readonly isCritical: boolean;
  readonly value: Uint8Array;
}

/** @throws DerError when it is no sequence */
export function sequenceOf(element: DerElement | undefined): DerElement[] {
  return derElements(expectTag(element, derTag.sequence).content);
}

/** The identifier of an AlgorithmIdentifier. @throws DerError */
export function algorithmOf(element: DerElement | undefined): string {
  return derObjectIdentifier(sequenceOf(element)[0]);
}

/** Extensions by identifier; none where `element` is something else. @throws DerError also for one that is there twice. */
export function extensionsOf(element: DerElement | undefined, tag: number): Map<string, Extension> {
  const extensions = new Map<string, Extension>();
  if (element?.tag !== tag) return extensions;
  for (const extension of sequenceOf(derElement(element.content, derTag.sequence))) {
    const [identifier, critical, ...rest] = sequenceOf(extension);
    const id = derObjectIdentifier(identifier);
    if (extensions.has(id)) throw new DerError(`extension ${id} is there twice`);
    const isCritical = critical?.tag === derTag.boolean && derBoolean(critical);
    const value = expectTag(rest.at(-1) ?? critical, derTag.octetString).content;
    extensions.set(id, { isCritical, value });
  }
  return extensions;
}
