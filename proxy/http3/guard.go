package http3

import (
	"sync"
	"time"
)

// What a client may cost beyond its requests.
const (
	patience = 1000 // at once
	soothing = 200  // and again in a second
	// resetCost is a reset's: it undoes a request that had its price.
	resetCost = 4
	// answerCredit is what an answer gives.
	answerCredit = 2
)

// guard counts what a client makes us do that asks for nothing: resets, streams
// and frames that are not known, empty ones.
type guard struct {
	mu    sync.Mutex
	spent int
	at    time.Time // until when time was taken into account
}

var errCostly = &connError{codeExcessiveLoad, "the connection carries more of itself than of requests"}

// cost notes n such things and reports whether the client goes too far.
func (g *guard) cost(n int) *connError {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spent += n; g.spent <= patience {
		return nil
	}
	now := time.Now()
	g.spent = max(0, g.spent-int(min(now.Sub(g.at), time.Minute).Seconds()*soothing))
	g.at = now
	if g.spent <= patience {
		return nil
	}
	return errCostly
}

// credit: a request was answered, which may well come with some such things.
func (g *guard) credit() {
	g.mu.Lock()
	g.spent = max(0, g.spent-answerCredit)
	g.mu.Unlock()
}
