//go:build race

package fuel

// raceDetector: the engine compiles some twenty times slower under it.
const raceDetector = true
