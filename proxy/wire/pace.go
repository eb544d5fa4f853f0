package wire

import "time"

// MinRate is how many bytes a second a peer has to take or send, on average, once
// it has used up its grace.
const MinRate = 240

// Pace bounds how long a peer may be waited for in all: by a grace, and a second
// for each MinRate bytes that it has moved. So who is slow is served, and who drips
// is not, however regularly. Only time that is spent waiting counts. The zero value
// has waited for nobody yet.
type Pace struct {
	moved  int64
	waited time.Duration
}

// enough bytes for a century.
const enough = 1 << 40

// Left is how long one more wait may be.
func (p *Pace) Left(grace time.Duration) time.Duration {
	earned := time.Duration(min(p.moved, enough)/MinRate) * time.Second
	return max(0, grace+earned-p.waited)
}

// Waited notes a wait, and Moved what came of it.
func (p *Pace) Waited(d time.Duration) { p.waited += d }

// Moved notes so many bytes.
func (p *Pace) Moved(n int64) { p.moved += n }
