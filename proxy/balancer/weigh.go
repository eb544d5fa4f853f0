package balancer

import "math"

// Member is what is known of one endpoint.
type Member struct {
	// Weight is its declared share.
	Weight float64
	// Healthy: it may be used.
	Healthy bool
	// Local: it is in the proxy's own zone.
	Local bool
	// Grown is how much of its share it has grown into, above 0 and up to 1;
	// 0 means all.
	Grown float64
}

// Terms say how members are weighed.
type Terms struct {
	// PanicThreshold is the percentage of healthy members below which all are
	// used.
	PanicThreshold uint32
	// PreferLocal: local members bear all as long as enough of them are
	// healthy, and their part of it when fewer are.
	PreferLocal bool
}

// overprovisioning is how much more than its share a member is taken to bear:
// a zone keeps all of its requests as long as five in seven are healthy.
const overprovisioning = 1.4

// Weigh returns what each member's share is now, and whether there is panic:
// so few are healthy that they would not survive what is meant for all, and
// health checks that fail nearly everywhere say little of any one endpoint.
func Weigh(members []Member, terms Terms) (weights []uint32, panic bool) {
	healthy, offered := 0, 0
	for _, m := range members {
		if m.Weight > 0 {
			offered++
			if m.Healthy {
				healthy++
			}
		}
	}
	shares := make([]float64, len(members))
	if healthy*100 < offered*int(terms.PanicThreshold) {
		for i, m := range members {
			shares[i] = m.Weight
		}
		return whole(shares), true
	}
	for i, m := range members {
		if m.Healthy {
			shares[i] = m.Weight
			if m.Grown > 0 && m.Grown < 1 {
				shares[i] *= m.Grown
			}
		}
	}
	if terms.PreferLocal {
		preferLocal(members, shares)
	}
	return whole(shares), false
}

// preferLocal scales the shares so that the local members together have what
// they can bear and the others the rest.
func preferLocal(members []Member, shares []float64) {
	var sum, well, all [2]float64 // of the others, of the local ones
	for i, m := range members {
		zone := 0
		if m.Local {
			zone = 1
		}
		sum[zone] += shares[i]
		all[zone] += m.Weight
		if m.Healthy {
			well[zone] += m.Weight
		}
	}
	if sum[0] == 0 || sum[1] == 0 {
		return // there is no choice between them
	}
	local := min(1, overprovisioning*well[1]/all[1])
	other := min(1-local, overprovisioning*well[0]/all[0])
	for i, m := range members {
		if m.Local {
			shares[i] *= local / sum[1]
		} else {
			shares[i] *= other / sum[0]
		}
	}
}

// fine is about the sum of weights made from shares that are no whole numbers.
const fine = 1 << 20

// whole turns shares into weights: as they are where they are whole numbers, so
// that small ones give short rounds; else scaled, and none of them to nothing.
func whole(shares []float64) []uint32 {
	sum, exact := 0.0, true
	for _, s := range shares {
		sum += s
		exact = exact && s == math.Trunc(s) && s <= math.MaxUint32
	}
	weights := make([]uint32, len(shares))
	for i, s := range shares {
		switch {
		case exact:
			weights[i] = uint32(s)
		case s > 0 && sum > 0:
			weights[i] = uint32(max(1, math.Round(s/sum*fine)))
		}
	}
	return weights
}

// Grown is how much of its share a member has after some part of its window,
// from least (above 0) to 1: evenly when aggression is 1, sooner when it is more.
func Grown(part, aggression, least float64) float64 {
	if part >= 1 {
		return 1
	}
	return min(1, max(least, math.Pow(max(part, 0), 1/aggression)))
}
