"""The Pair check tab: any two models through the gate."""
