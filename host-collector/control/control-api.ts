import { Hono, type Context } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { z } from 'zod';

import { formatProblem, type ConfigProblem } from '../../common/config/load-config.ts';
import type { CollectorNeighbour } from '../../common/control/collector-answer.ts';
import { OperatingError } from '../../common/runtime/operating-error.ts';
import type { StageCounts } from '../../common/runtime/stage-counters.ts';
import {
  checkDescriptor,
  DescriptorError,
  type DescriptorErrorCode,
} from '../vm/descriptor-store.ts';
import type { VmStatus, VmSupervisor } from '../vm/vm-supervisor.ts';

const setMonitoringBody = z.strictObject({
  /** The revision that the change was made from. */
  revision: z.int().positive(),
  monitoring: z.unknown(),
});

/** A request body is at most this; a larger one is refused with 413, before it is collected. */
const controlBodyBytesMax = 4 * 1_024 * 1_024;

const statusByCode = {
  'descriptor-invalid': 422,
  'vm-exists': 409,
  'vm-unknown': 404,
  'vm-limit': 507,
  'revision-conflict': 409,
} as const satisfies Record<DescriptorErrorCode, number>;

/**
 * The collector's control API, served on a unix socket.
 *
 *     GET    /v1/vms                    descriptors, and the VMs whose descriptor is refused, with the reason
 *     POST   /v1/vms                    add: a descriptor                           201
 *     GET    /v1/vms/:vm                one descriptor
 *     DELETE /v1/vms/:vm                end its streams and forget it               204
 *     PUT    /v1/vms/:vm/monitoring     {revision, monitoring}: compare-and-set
 *     POST   /v1/check                  a descriptor: what is wrong with it, changing nothing
 *     GET    /v1/status                 neighbours, each VM's state, and what each stage counted
 *
 * Errors are `{error: {code, message, problems}}` with the codes of DescriptorError, `body-invalid`, `body-too-large`,
 * and `not-found`; others are the server's.
 */
export function createControlApi(deps: {
  readonly vms: VmSupervisor;
  /** Counts of what comes after the origin. */
  readonly streamStages: () => Record<string, StageCounts>;
  readonly neighbours: () => readonly CollectorNeighbour[];
}): Hono {
  const { vms } = deps;
  const api = new Hono();
  api.use(
    bodyLimit({
      maxSize: controlBodyBytesMax,
      onError: () => {
        throw new BodyError('body-too-large', `a body has at most ${controlBodyBytesMax} bytes`);
      },
    }),
  );
  api.get('/v1/vms', (context) => context.json({ vms: vms.list(), refused: vms.refused() }));
  api.post('/v1/vms', async (context) => context.json(await vms.add(await readBody(context)), 201));
  api.get('/v1/vms/:vm', (context) => context.json(vms.read(context.req.param('vm'))));
  api.delete('/v1/vms/:vm', async (context) => {
    await vms.remove(context.req.param('vm'));
    return context.body(null, 204);
  });
  api.put('/v1/vms/:vm/monitoring', async (context) => {
    const parsed = setMonitoringBody.safeParse(await readBody(context));
    if (!parsed.success) throw new BodyError('body-invalid', z.prettifyError(parsed.error));
    const { revision, monitoring } = parsed.data;
    return context.json(await vms.setMonitoring(context.req.param('vm'), revision, monitoring));
  });
  api.post('/v1/check', async (context) => context.json(checkDescriptor(await readBody(context))));
  api.get('/v1/status', (context) => {
    const statuses = vms.status();
    return context.json({
      neighbours: deps.neighbours(),
      vms: statuses,
      stages: { ...stagesOf(statuses), ...deps.streamStages() },
    });
  });
  api.notFound((context) => {
    const message = `no such path: ${context.req.path}`;
    return context.json(errorBody('not-found', message), 404);
  });
  api.onError((error, context) => answerError(error, context));
  return api;
}

/** Stages of each VM: STAGE/VM, where a VM's id has no slash. */
function stagesOf(statuses: readonly VmStatus[]): Record<string, StageCounts> {
  return Object.fromEntries(
    statuses.flatMap(({ vm, origin, deliveries, guest }) => [
      ...(guest === null ? [] : [[`guest-channel/${vm}`, guest] as const]),
      [`origin/${vm}`, origin],
      [`deliveries/${vm}`, deliveries],
    ]),
  );
}

class BodyError extends OperatingError<'body-invalid' | 'body-too-large'> {
  override readonly name = 'BodyError';
}

async function readBody(context: Context): Promise<unknown> {
  const text = await context.req.text();
  try {
    return JSON.parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new BodyError('body-invalid', `the body is no JSON: ${reason}`, { cause });
  }
}

function answerError(error: Error, context: Context): Response {
  if (error instanceof DescriptorError) {
    const { code, message, problems } = error;
    const lines = problems.map((problem) => formatProblem(problem));
    return context.json(
      errorBody(code, [message, ...lines].join('\n'), problems),
      statusByCode[code],
    );
  }
  if (error instanceof BodyError) {
    const status = error.code === 'body-too-large' ? 413 : 400;
    return context.json(errorBody(error.code, error.message), status);
  }
  // The server that this API is mounted on logs what nobody expected.
  throw error;
}

function errorBody(
  code: string,
  message: string,
  problems: readonly ConfigProblem[] = [],
): { readonly error: object } {
  return { error: { code, message, problems } };
}
