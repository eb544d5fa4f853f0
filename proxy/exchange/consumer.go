package exchange

import "time"

// Consumer is who calls an Api, and what for.
type Consumer struct {
	Tenant, Organization, App, Credential string
	// Subscription is what lets the App call the Api, of a Plan that has Limits.
	Subscription, Plan string
	Limits             []Limit
}

// Limit is how many requests a Subscription has in each Window, which is aligned to
// the epoch. Exact: never more, whatever fails.
type Limit struct {
	Name     string
	Requests uint64
	Window   time.Duration
	Exact    bool
}
