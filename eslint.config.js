// What eslint looks for in the pages' scripts: `make eslint`. No plugin is imported, so that npx needs nothing beside eslint.

const browser = [
  "AbortController", "Blob", "CSSStyleSheet", "DecompressionStream", "ImageData", "IntersectionObserver", "ResizeObserver",
  "Response", "atob", "cancelAnimationFrame", "clearInterval", "clearTimeout", "document", "getComputedStyle", "matchMedia",
  "performance", "requestAnimationFrame", "setInterval", "setTimeout", "window",
];

module.exports = [
  {
    files: ["rlhflab/**/*.js"],
    languageOptions: {
      ecmaVersion: "latest",
      sourceType: "module",
      globals: Object.fromEntries(browser.map((name) => [name, "readonly"])),
    },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      // a name
      "no-undef": "error",
      "no-unused-vars": ["error", { args: "after-used" }],
      "no-redeclare": "error",
      "no-shadow-restricted-names": "error",
      "no-use-before-define": ["error", { functions: false, classes: false, variables: false }],
      "no-duplicate-imports": "error",
      "no-import-assign": "error",
      "no-const-assign": "error",
      "no-class-assign": "error",
      "no-func-assign": "error",
      "prefer-const": ["error", { destructuring: "all" }],
      "no-var": "error",
      // a value
      eqeqeq: "error",
      "use-isnan": "error",
      "valid-typeof": "error",
      "no-self-assign": "error",
      "no-self-compare": "error",
      "no-unsafe-negation": "error",
      "no-unsafe-optional-chaining": "error",
      "no-sparse-arrays": "error",
      "no-dupe-keys": "error",
      "no-dupe-args": "error",
      "no-dupe-class-members": "error",
      "no-loss-of-precision": "error",
      // a path
      "no-unreachable": "error",
      "no-fallthrough": "error",
      "no-dupe-else-if": "error",
      "no-duplicate-case": "error",
      "no-constant-condition": "error",
      "no-cond-assign": "error",
      "getter-return": "error",
      "array-callback-return": "error",
      "for-direction": "error",
      "no-empty": "error",
      "no-unused-expressions": "error",
      "no-useless-escape": "error",
      // a text
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-restricted-properties": ["error",
        ...["innerHTML", "outerHTML", "insertAdjacentHTML"].map((property) => ({ property, message: "a text of a model is never read as HTML" }))],
    },
  },
];
