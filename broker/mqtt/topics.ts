import assert from 'node:assert';

/*
 * Each neighbour relation has one subtree, so that rights at an external broker are static: the producer writes
 * n/<relation>/down/# and reads n/<relation>/up/#, the consumer the other way round.
 *
 *   n/<relation>/up/control            consumer -> producer   control messages
 *   n/<relation>/down/control          producer -> consumer   control messages
 *   n/<relation>/down/live             producer -> consumer   frame batches, as frames are committed
 *   n/<relation>/down/range/<request>  producer -> consumer   frame batches, answers to one query
 *
 * Levels are made of letters, digits, _ and - only: NATS refuses `.`, and +, # and / are MQTT's own.
 */
const levelShape = /^[A-Za-z0-9_-]{1,64}$/;

function isTopicLevel(text: string): boolean {
  return levelShape.test(text);
}

export interface RelationTopics {
  readonly upControl: string;
  readonly downControl: string;
  readonly live: string;
  readonly rangeFilter: string;
  /** Derived by the producer from a checked request id; never taken from a message. */
  range(request: string): string;
  /** The request id of a topic that {@link range} made; undefined for any other. */
  requestOf(topic: string): string | undefined;
}

/** The topics of one relation. */
export function relationTopics(relation: string): RelationTopics {
  assert(isTopicLevel(relation), `relation ${relation}: letters, digits, _ and -, 1 to 64 of them`);
  const root = `n/${relation}`;
  const rangeRoot = `${root}/down/range/`;
  return {
    upControl: `${root}/up/control`,
    downControl: `${root}/down/control`,
    live: `${root}/down/live`,
    rangeFilter: `${rangeRoot}+`,
    range: (request) => {
      assert(
        isTopicLevel(request),
        `request ${request}: letters, digits, _ and -, 1 to 64 of them`,
      );
      return rangeRoot + request;
    },
    requestOf: (topic) => {
      if (!topic.startsWith(rangeRoot)) return undefined;
      const request = topic.slice(rangeRoot.length);
      return isTopicLevel(request) ? request : undefined;
    },
  };
}

/** Whether `topic` matches `filter` (MQTT 3.1.1 section 4.7; topics that begin with $ are not used). */
export function topicMatches(filter: string, topic: string): boolean {
  if (filter === topic) return true;
  const filterLevels = filter.split('/');
  const topicLevels = topic.split('/');
  for (const [index, level] of filterLevels.entries()) {
    if (level === '#') return true;
    const found = topicLevels[index];
    if (found === undefined || (level !== '+' && level !== found)) return false;
  }
  return filterLevels.length === topicLevels.length;
}
