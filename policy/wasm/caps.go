package wasm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Caps are bounds of plugins in a process, by name, as whoever runs it sets them.
// What is not named has its default: see [Config].
type Caps map[string]uint64

// knownCaps says where each of them belongs, and what it may be at most. Where a cap
// of a tenant is below that of a policy the tenant's counts.
var knownCaps = map[string]struct {
	least, most uint64
	set         func(*Config, uint64)
}{
	"memory":           {1 << 20, 256 << 20, func(c *Config, n uint64) { c.MemoryBytes = n }},
	"tenant-memory":    {1 << 20, 1 << 40, func(c *Config, n uint64) { c.TenantMemoryBytes = int64(n) }},
	"fuel":             {10_000, 10_000_000_000, func(c *Config, n uint64) { c.Fuel = n }},
	"max-fuel":         {10_000, 10_000_000_000, func(c *Config, n uint64) { c.MaxFuel = n }},
	"vms":              {1, 10_000, func(c *Config, n uint64) { c.VMs = int(n) }},
	"tenant-vms":       {1, 100_000, func(c *Config, n uint64) { c.TenantVMs = int(n) }},
	"tenant-shared":    {1, 1 << 40, func(c *Config, n uint64) { c.SharedBytes = int(n) }},
	"tenant-queues":    {1, 1 << 40, func(c *Config, n uint64) { c.QueueBytes = int(n) }},
	"log-lines":        {1, 1_000_000, func(c *Config, n uint64) { c.LogLines = int(n) }},
	"tenant-log-lines": {1, 1_000_000, func(c *Config, n uint64) { c.TenantLogLines = int(n) }},
	"calls":            {1, 100_000, func(c *Config, n uint64) { c.Calls = int(n) }},
	"tenant-calls":     {1, 100_000, func(c *Config, n uint64) { c.TenantCalls = int(n) }},
	"call-bytes":       {1, 64 << 20, func(c *Config, n uint64) { c.CallBytes = int(n) }},
}

// Validate says what is wrong with them.
func (c Caps) Validate() error {
	for _, name := range slices.Sorted(maps.Keys(c)) {
		known, ok := knownCaps[name]
		if !ok {
			return fmt.Errorf("no limit of plugins is called %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(knownCaps)), ", "))
		}
		if n := c[name]; n < known.least || n > known.most {
			return fmt.Errorf("the limit %s of plugins must be from %d to %d, not %d", name, known.least, known.most, n)
		}
	}
	return nil
}

// WithCaps is the configuration with these bounds.
func (c Config) WithCaps(caps Caps) Config {
	for name, n := range caps {
		if known, ok := knownCaps[name]; ok {
			known.set(&c, n)
		}
	}
	return c
}
