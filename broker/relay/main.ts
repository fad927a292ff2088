import { keepYoungGenerationSmall } from '../../common/runtime/young-generation.ts';

/** The relay process. What it is made of comes later, as loading that is what makes the young generation grow first. */
keepYoungGenerationSmall();
const { runRelay } = await import('./run-relay.ts');
await runRelay();
