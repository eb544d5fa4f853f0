package canary

import (
	"fmt"
	"math"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
)

// When a canary is given up. Failures are its own fault, so few are enough: this many,
// if they are more than twice as frequent as the stable version's. What is answered
// with 500 or more may be the service's doing, and is compared with care: both versions
// have taken part in so many exchanges, so many of the canary's were answered thus, and
// that they are more by this many of a hundred is no chance, by so many standard errors
// (a false alarm in some 30,000 looks; there are many looks).
const (
	leastFailures  = 3
	timesFailures  = 2
	leastExchanges = 50
	leastErrors    = 5
	leastRise      = 0.01
	standardErrors = 4
)

// Judge says why a canary is to be given up, "" if it is not.
func Judge(canary, stable *weirv1.PluginCounts) string {
	if n := canary.GetFailures(); n >= leastFailures && rate(n, canary) > timesFailures*rate(stable.GetFailures(), stable) {
		what := "failures"
		switch canary.GetOutOfFuel() {
		case 0:
		case n:
			what = "failures, all out of fuel"
		default:
			what = fmt.Sprintf("failures, %d out of fuel", canary.GetOutOfFuel())
		}
		return fmt.Sprintf("%d %s in %d exchanges; the version in force has %d in %d", n, what, canary.GetExchanges(),
			stable.GetFailures(), stable.GetExchanges())
	}
	if canary.GetServerErrors() >= leastErrors && rises(canary, stable) {
		return fmt.Sprintf("%d of %d exchanges answered with 5xx; of the version in force %d of %d", canary.GetServerErrors(), canary.GetExchanges(),
			stable.GetServerErrors(), stable.GetExchanges())
	}
	return ""
}

// rises compares two shares, by the usual test for proportions.
func rises(canary, stable *weirv1.PluginCounts) bool {
	n, m := float64(canary.GetExchanges()), float64(stable.GetExchanges())
	if n < leastExchanges || m < leastExchanges {
		return false
	}
	rise := rate(canary.GetServerErrors(), canary) - rate(stable.GetServerErrors(), stable)
	all := (float64(canary.GetServerErrors()) + float64(stable.GetServerErrors())) / (n + m)
	return rise >= leastRise && rise >= standardErrors*math.Sqrt(all*(1-all)*(1/n+1/m))
}

func rate(n uint64, of *weirv1.PluginCounts) float64 {
	if of.GetExchanges() == 0 {
		return 0
	}
	return float64(n) / float64(of.GetExchanges())
}

// Add adds what one proxy counted to a sum.
func Add(sum, one *weirv1.PluginCounts) {
	sum.Exchanges += one.GetExchanges()
	sum.Failures += one.GetFailures()
	sum.OutOfFuel += one.GetOutOfFuel()
	sum.ServerErrors += one.GetServerErrors()
	sum.Fuel += one.GetFuel()
}
