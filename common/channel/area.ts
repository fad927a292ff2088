/** The two directories of the mount (federated-interfaces IV-A), and the databases named after them. No schema library here: threads import it. */
export const areas = ['encrypted', 'unencrypted'] as const;
export type Area = (typeof areas)[number];

/** Something for each of the two databases, each of which has its own generation and row ids. */
export type PerArea<Item> = Readonly<Record<Area, Item>>;
