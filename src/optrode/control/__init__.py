"""Control of behaviour: directions, maps and controllers, their doses, how they are judged, kept and served."""
