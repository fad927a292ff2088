/** What a neighbour is in a relation: the one that frames come from, or the one that they go to. */
export type NeighbourRole = 'producer' | 'consumer';

/** An authenticated neighbour on a connection. */
export interface Neighbour {
  readonly relation: string;
  readonly role: NeighbourRole;
  /** Where it dials from, without the port. */
  readonly address?: string | undefined;
}

/**
 * Whether the neighbour may publish to `topic`: the direction of its own relation in which it speaks.
 *
 *   consumer   publishes n/<relation>/up/#     reads n/<relation>/down/#
 *   producer   publishes n/<relation>/down/#   reads n/<relation>/up/#
 */
export function mayPublish(neighbour: Neighbour, topic: string): boolean {
  const direction = neighbour.role === 'consumer' ? 'up' : 'down';
  return topic.startsWith(`n/${neighbour.relation}/${direction}/`);
}

/**
 * Whether the neighbour may read what `filter` matches. The levels that name relation and direction must be written
 * out, so that no wildcard reaches beyond them.
 */
export function mayRead(neighbour: Neighbour, filter: string): boolean {
  const direction = neighbour.role === 'consumer' ? 'down' : 'up';
  return filter.startsWith(`n/${neighbour.relation}/${direction}/`);
}
