import assert from 'node:assert';

import { z } from 'zod';

interface JsonSchema {
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly pattern?: string;
  readonly maxLength?: number;
  readonly maxItems?: number;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly additionalProperties?: unknown;
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
}

/**
 * Asserts that a schema is an allow-list: it names every key that an object may have, and bounds every text and list. What
 * is parsed by it is therefore rebuilt from known keys only, and can't carry along what a handler happened to hold.
 */
export function assertAllowList(schema: z.ZodType, name: string): void {
  checkNode(z.toJSONSchema(schema, { io: 'output' }) as JsonSchema, name);
}

function checkNode(node: JsonSchema, path: string): void {
  const alternatives = [...(node.anyOf ?? []), ...(node.oneOf ?? [])];
  for (const [index, each] of alternatives.entries()) checkNode(each, `${path}|${index}`);
  if (alternatives.length > 0 || node.const !== undefined || node.enum !== undefined) return;
  switch (node.type) {
    case 'object':
      assert(node.additionalProperties === false, `${path} lets unknown keys through`);
      for (const [key, child] of Object.entries(node.properties ?? {})) {
        checkNode(child, `${path}.${key}`);
      }
      return;
    case 'array':
      assert(node.maxItems !== undefined, `${path} has no bound on its items`);
      checkNode(node.items ?? {}, `${path}[]`);
      return;
    case 'string': {
      const isBounded = node.maxLength !== undefined || node.pattern !== undefined;
      assert(isBounded, `${path} is a text without a bound or a pattern`);
      return;
    }
    case 'integer':
    case 'number':
    case 'boolean':
    case 'null':
      return;
    case undefined:
    default:
      assert.fail(`${path} may be anything`);
  }
}
