package http2

import "time"

// What a client may cost beyond its requests.
const (
	patience = 1000 // at once
	soothing = 200  // and again in a second
	// maxUnread is how much the reader may leave to be written.
	maxUnread = 256 << 10
	// maxEchoes is how many echoes may be owed for what was sent.
	maxEchoes = 1 << 20
)

// guard counts what a client makes us do that asks for nothing: resets, pings,
// settings, empty and unknown frames. What it asks for gives it credit.
type guard struct {
	spent int
	at    time.Time // until when time was taken into account
	// echoes are those that the client may yet send for what it got: it may give
	// windows back once it has got all.
	echoes int
}

// cost notes n such things and reports whether the client goes too far.
func (g *guard) cost(n int) *connError {
	g.spent += n
	if g.spent <= patience {
		return nil
	}
	now := time.Now()
	g.credit(int(min(now.Sub(g.at), time.Minute).Seconds() * soothing))
	g.at = now
	if g.spent <= patience {
		return nil
	}
	return &connError{codeCalm, "the connection carries more of itself than of requests"}
}

func (g *guard) credit(n int) { g.spent = max(0, g.spent-n) }

// earn notes what may be echoed so many times: it makes up for what was spent, and
// the rest is for echoes alone.
func (g *guard) earn(n int) {
	g.echoes = min(g.echoes+max(0, n-g.spent), maxEchoes)
	g.credit(n)
}

// echo notes an answer of the client's to what it got.
func (g *guard) echo() *connError {
	if g.echoes > 0 {
		g.echoes--
		return nil
	}
	return g.cost(1)
}
