package wasm

// What a guest may make the host keep or do, beside memory and fuel.
const (
	// maxExchangeBytes is what one filter may put into its exchange: fields,
	// properties, an answer.
	maxExchangeBytes = 4 << 20
	// maxBodyBytes is what a guest may make of one chunk.
	maxBodyBytes = 4 << 20
	// maxFields is how many fields a head may grow to.
	maxFields = 1024
	// maxEdits is how many edits a VM keeps, and maxEditBytes how large they are.
	maxEdits     = 255
	maxEditBytes = 256 << 10
	// maxDetails is how long an answer's details are.
	maxDetails = 128
	// maxLogBytes is where a line of the log is cut.
	maxLogBytes = 4 << 10
	// maxShared is how many entries a tenant's shared data has.
	maxShared    = 1 << 16
	maxSharedKey = 1 << 10
	// maxMetrics is how many metrics a plugin defines, maxMetricName how long
	// their names are.
	maxMetrics    = 1000
	maxMetricName = 512
	// maxRandom is how many random bytes one call gives.
	maxRandom = 64 << 10
	// minTick is the shortest period of ticks, in milliseconds.
	minTick = 10
	// keptScratch is how much memory for results a VM keeps from call to call.
	keptScratch = 256 << 10
)

// What host functions draw from the tank: a call costs the host about as much as
// this many instructions cost the guest, and so does every bytesPerFuel bytes.
const (
	fuelPerCall  = 200
	fuelPerEdit  = 50 // a change of an edit
	fuelPerLog   = 2_000
	fuelPerByte4 = 1 // for each 4 bytes
	// mostOwed is how much of it host functions may use before it is drawn.
	mostOwed = 1_000
	// maxFuel keeps sums of fuel within 64 bits.
	maxFuel = 1 << 50
	// startFactor: what starts a VM (its runtime's initialisation, the parsing of
	// its configuration) gets this many tanks.
	startFactor = 20
)
