//go:build !race

package fuel

const raceDetector = false
