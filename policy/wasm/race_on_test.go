//go:build race

package wasm

// raceDetector: the engine compiles some twenty times slower under it.
const raceDetector = true
