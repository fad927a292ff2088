import { defineConfig } from 'vitest/config';

/** Kinds of test by file suffix; each has its own minute budget, printed by scripts/test.ts. */
const kinds = {
  contract: 'test/**/*.contract.test.ts',
  mount: 'test/**/*.mount.test.ts',
  e2e: 'test/**/*.e2e.test.ts',
};

export default defineConfig({
  cacheDir: '.cache/vitest',
  test: {
    globalSetup: ['test/support/build-once.ts'],
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: Object.values(kinds),
          testTimeout: 20_000,
        },
      },
      project('contract', 60_000),
      project('mount', 120_000),
      project('e2e', 180_000),
    ],
    coverage: {
      provider: 'v8',
      include: [
        'common/**',
        'broker/**',
        'guest-agent/**',
        'host-collector/**',
        'primary-site/**',
        'cli/**',
      ],
    },
  },
});

/** Tests with real mounts and processes run one file at a time: two cores, and mounts are global state. */
function project(name: keyof typeof kinds, testTimeoutMs: number) {
  return {
    extends: true as const,
    test: {
      name,
      include: [kinds[name]],
      testTimeout: testTimeoutMs,
      hookTimeout: testTimeoutMs,
      fileParallelism: false,
    },
  };
}
